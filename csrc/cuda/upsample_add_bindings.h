// The launchers of upsample_add for Python.
#pragma once

#include "bindings.h"
#include "bindings/fields.h"
#include "upsample_add.h"

namespace py = pybind11;

namespace fcnkern::cuda {

inline void deconv_grad_x(const Deconv& params, const TensorArgs& result, const StreamArgs& args) {
  upsample_add_grad_x(params, tensor_view(result), stream(args));
}

inline void deconv_grad_weight(const Deconv& params, uintptr_t partials, int parts, const StreamArgs& args) {
  upsample_add_grad_weight(params, reinterpret_cast<float*>(partials), parts, stream(args));
}

inline void bind_upsample_add(py::module_& m) {
  Fields<Deconv> deconv(m, "Deconv");
  deconv.tensor("x", &Deconv::x).tensor("weight", &Deconv::weight).tensor("y", &Deconv::y);
  deconv.def_property("kind", nullptr, [](Deconv& d, int kind) { d.kind = static_cast<DeconvKind>(kind); });
  deconv.value("images", &Deconv::images).value("inputs", &Deconv::inputs).value("outputs", &Deconv::outputs);
  deconv.value("height", &Deconv::height).value("width", &Deconv::width).numbers("kernel", &Deconv::kernel);
  deconv.numbers("stride", &Deconv::stride).numbers("begin", &Deconv::begin).numbers("size", &Deconv::size);
  Fields<UpsampleAdd> add(m, "UpsampleAdd");
  add.value("deconv", &UpsampleAdd::deconv).tensor("skip", &UpsampleAdd::skip);
  add.value("features", &UpsampleAdd::features).tensor("skip_weight", &UpsampleAdd::skip_weight);
  add.tensor("skip_bias", &UpsampleAdd::skip_bias).value("skip_scale", &UpsampleAdd::skip_scale);
  m.def("upsample_add_fwd", &launcher<UpsampleAdd, upsample_add_fwd>, "Transposed convolution plus a cropped skip.");
  m.def("upsample_add_grad_x", &deconv_grad_x, "Gradient of the transposed convolution's input.");
  m.def("upsample_add_grad_weight", &deconv_grad_weight, "Partial sums of the gradient of its weight.");
}

}  // namespace fcnkern::cuda
