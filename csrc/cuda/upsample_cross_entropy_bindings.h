// The launchers of upsample_cross_entropy for Python.
#pragma once

#include "bindings/arguments.h"
#include "bindings.h"
#include "bindings/fields.h"
#include "upsample_cross_entropy.h"

namespace py = pybind11;

namespace fcnkern::cuda {

inline void bind_pixels(py::module_& m) {
  Fields<LossPixels> pixels(m, "LossPixels");
  pixels.def_property("target", nullptr, [](LossPixels& p, const LabelMapArgs& args) { p.target = label_map(args); });
  pixels.value("classes", &LossPixels::classes).value("height", &LossPixels::height).value("width", &LossPixels::width);
  pixels.value("ignore_index", &LossPixels::ignore_index).value("smoothing", &LossPixels::smoothing);
  pixels.address("class_weight", &LossPixels::class_weight).address("total_weight", &LossPixels::total_weight);
  pixels.address("pixel_weight", &LossPixels::pixel_weight).address("limits", &LossPixels::limits);
  pixels.value("limit_per_class", &LossPixels::limit_per_class).address("seed", &LossPixels::seed);
  pixels.value("cell", &LossPixels::cell).address("hard_losses", &LossPixels::hard_losses);
  pixels.address("cuts", &LossPixels::cuts).address("report", &LossPixels::report);
}

inline void bind_cells(py::module_& m) {
  Fields<LossAxis> axis(m, "LossAxis");
  axis.address("first", &LossAxis::first).address("counts", &LossAxis::counts).address("start", &LossAxis::start);
  axis.value("step", &LossAxis::step).value("parts", &LossAxis::parts);
  Fields<LossCells> cells(m, "LossCells");
  cells.value("pixels", &LossCells::pixels).tensor("scores", &LossCells::scores);
  cells.value("height", &LossCells::height).value("width", &LossCells::width);
  cells.value("y", &LossCells::y).value("x", &LossCells::x).value("slots", &LossCells::slots);
  cells.value("zero", &LossCells::zero).value("gentle_twist", &LossCells::gentle_twist);
  cells.value("steep", &LossCells::steep);
  cells.value("lanes", &LossCells::lanes).value("columns", &LossCells::columns);
  cells.value("x_begin", &LossCells::x_begin).value("y_begin", &LossCells::y_begin);
  cells.value("rows", &LossCells::rows).value("band", &LossCells::band);
  cells.value("strips", &LossCells::strips).value("bands", &LossCells::bands);
  cells.address("losses", &LossCells::losses).address("grad", &LossCells::grad);
  cells.numbers("grad_stride", &LossCells::grad_stride).address("seam", &LossCells::seam);
  cells.address("rim", &LossCells::rim).address("partials", &LossCells::partials).address("counts", &LossCells::counts);
}

inline void bind_full(py::module_& m) {
  Fields<LossFull> full(m, "LossFull");
  full.value("pixels", &LossFull::pixels).tensor("scores", &LossFull::scores);
  full.value("images", &LossFull::images).value("rows", &LossFull::rows);
  full.value("first_image", &LossFull::first_image).value("first_row", &LossFull::first_row);
  full.value("blocks", &LossFull::blocks).value("divisor", &LossFull::divisor).address("weight", &LossFull::weight);
  full.address("losses", &LossFull::losses).address("grad", &LossFull::grad);
  full.numbers("grad_stride", &LossFull::grad_stride).address("partials", &LossFull::partials);
}

inline void bind_after(py::module_& m) {
  Fields<LossTotal> total(m, "LossTotal");
  total.address("partials", &LossTotal::partials).value("programs", &LossTotal::programs);
  total.value("divisor", &LossTotal::divisor).address("loss", &LossTotal::loss);
  total.address("scale", &LossTotal::scale).address("stats", &LossTotal::stats);
  Fields<LossFinish> finish(m, "LossFinish");
  finish.address("grad", &LossFinish::grad).numbers("grad_stride", &LossFinish::grad_stride);
  finish.value("images", &LossFinish::images).value("classes", &LossFinish::classes);
  finish.value("height", &LossFinish::height).value("width", &LossFinish::width);
  finish.value("channels_last", &LossFinish::channels_last).address("seam", &LossFinish::seam);
  finish.address("rim", &LossFinish::rim).address("scale", &LossFinish::scale);
  finish.value("columns", &LossFinish::columns).value("x_begin", &LossFinish::x_begin);
  finish.value("x_end", &LossFinish::x_end).value("y_begin", &LossFinish::y_begin).value("y_end", &LossFinish::y_end);
  finish.value("band", &LossFinish::band).value("strips", &LossFinish::strips);
  finish.value("x_parts", &LossFinish::x_parts).value("y_parts", &LossFinish::y_parts);
}

inline void sum_weights(const LossPixels& pixels, int images, uintptr_t partials, const StreamArgs& args) {
  upsample_cross_entropy_weight(pixels, images, reinterpret_cast<float*>(partials), stream(args));
}

inline void count_correct(const LossPixels& pixels, const LabelMapArgs& predicted, int images, uintptr_t partials, const StreamArgs& args) {
  upsample_cross_entropy_correct(pixels, label_map(predicted), images,
                                 reinterpret_cast<int*>(partials), stream(args));
}

inline void bind_upsample_cross_entropy(py::module_& m) {
  bind_pixels(m);
  bind_cells(m);
  bind_full(m);
  bind_after(m);
  m.def("upsample_cross_entropy_cells", &launcher<LossCells, upsample_cross_entropy_cells>,
        "Loss and gradient of scores that a Resample upsamples.");
  m.def("upsample_cross_entropy_full", &launcher<LossFull, upsample_cross_entropy_full>,
        "Loss and gradient of scores at full size.");
  m.def("upsample_cross_entropy_total", &launcher<LossTotal, upsample_cross_entropy_total>,
        "Loss, scale and counts from partial sums.");
  m.def("upsample_cross_entropy_finish", &launcher<LossFinish, upsample_cross_entropy_finish>,
        "Completes and scales the gradient.");
  m.def("upsample_cross_entropy_weight", &sum_weights, "Sums the weights of the pixels that count, per block.");
  m.def("upsample_cross_entropy_correct", &count_correct, "Counts the pixels that are predicted right, per block.");
}

}  // namespace fcnkern::cuda
