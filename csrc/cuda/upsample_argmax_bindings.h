// The launchers of upsample_argmax for Python.
#pragma once

#include "bindings.h"
#include "label_tiles_bindings.h"
#include "upsample_argmax.h"

namespace fcnkern::cuda {

inline void bind_upsample_argmax(pybind11::module_& m) {
  m.def(
      "upsample_argmax_fwd",
      [](const LabelTilesArgs& plan, uintptr_t labels, int type, uintptr_t confidence, const StreamArgs& on) {
        const LabelOutputs outputs{reinterpret_cast<void*>(labels), static_cast<LabelType>(type),
                                   reinterpret_cast<float*>(confidence)};
        upsample_argmax_fwd(label_tiles(plan), outputs, stream(on));
      },
      pybind11::arg("plan"), pybind11::arg("labels"), pybind11::arg("type"), pybind11::arg("confidence"),
      pybind11::arg("stream"),
      "Labels and, where its address is not 0, their probabilities, of upsampled scores.");
}

}  // namespace fcnkern::cuda
