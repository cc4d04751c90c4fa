// The launchers of confusion_matrix for Python.
#pragma once

#include "bindings.h"
#include "confusion_matrix.h"
#include "label_tiles_bindings.h"

namespace fcnkern::cuda {

// (target, (N, H, W), classes, ignore_index or None, address of the counts, copies of them, address of the
// target's report)
using CountArgs = std::tuple<LabelMapArgs, std::array<int64_t, 3>, int, std::optional<int64_t>, uintptr_t,
                             int, uintptr_t>;

inline unsigned long long* words(uintptr_t address) { return reinterpret_cast<unsigned long long*>(address); }

inline CountParams count_params(const CountArgs& args) {
  const auto& [target, size, classes, ignore_index, counts, copies, report] = args;
  return {label_map(target),        size[0],       size[1], size[2],      classes, ignore_index.has_value(),
          ignore_index.value_or(0), words(counts), copies,  words(report)};
}

inline void bind_confusion_matrix(pybind11::module_& m) {
  m.attr("CONFUSION_SHARED_CLASSES") = kSharedClasses;
  m.def(
      "confusion_matrix_labels_fwd",
      [](const CountArgs& counts, const LabelMapArgs& prediction, uintptr_t report, const StreamArgs& on) {
        confusion_matrix_labels_fwd(count_params(counts), label_map(prediction), words(report), stream(on));
      },
      pybind11::arg("counts"), pybind11::arg("prediction"), pybind11::arg("report"), pybind11::arg("stream"),
      "Adds the pairs of two label maps to the counts.");
  m.def(
      "confusion_matrix_scores_fwd",
      [](const CountArgs& counts, const LabelTilesArgs& prediction, const StreamArgs& on) {
        confusion_matrix_scores_fwd(count_params(counts), label_tiles(prediction), stream(on));
      },
      pybind11::arg("counts"), pybind11::arg("prediction"), pybind11::arg("stream"),
      "Adds the pairs of a label map and the argmax of upsampled scores to the counts.");
}

}  // namespace fcnkern::cuda
