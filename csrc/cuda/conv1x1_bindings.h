// The launchers of conv1x1 for Python.
#pragma once

#include "conv1x1.h"

#include <array>

#include "bindings.h"
#include "bindings/arguments.h"

namespace py = pybind11;

namespace fcnkern::cuda {

// images, inputs, outputs, height, width
using SizeArgs = std::array<int64_t, 5>;
// probability, address of the seed
using DropoutArgs = std::pair<double, uintptr_t>;

inline Conv1x1Size size_of(const SizeArgs& size) { return {size[0], size[1], size[2], size[3], size[4]}; }

inline Conv1x1Dropout dropout(const DropoutArgs& args) {
  return {args.second == 0 ? 0 : args.first, reinterpret_cast<const uint64_t*>(args.second)};
}

inline void forward(const SizeArgs& size, const TensorArgs& x, const TensorArgs& weight, const TensorArgs& bias,
                    const TensorArgs& y, double scale, bool relu, const DropoutArgs& drop, const StreamArgs& on) {
  conv1x1_forward({size_of(size), tensor_view(x), tensor_view(weight), tensor_view(bias), tensor_view(y), scale, relu,
                   dropout(drop)},
                  stream(on));
}

inline void epilogue(const SizeArgs& size, const TensorArgs& bias, const TensorArgs& y, double scale, bool relu,
                     const DropoutArgs& drop, const StreamArgs& on) {
  conv1x1_epilogue({size_of(size), {}, {}, tensor_view(bias), tensor_view(y), scale, relu, dropout(drop)}, stream(on));
}

inline void mask(const SizeArgs& size, const TensorArgs& grad, const TensorArgs& y, const TensorArgs& result,
                 const DropoutArgs& drop, const StreamArgs& on) {
  conv1x1_mask({size_of(size), tensor_view(grad), tensor_view(y), tensor_view(result), dropout(drop)}, stream(on));
}

inline void grad_weight(const SizeArgs& size, const TensorArgs& x, const TensorArgs& grad, const TensorArgs& weight,
                        const TensorArgs& bias, const std::array<double, 2>& scales,
                        const std::array<int64_t, 2>& ranges, uintptr_t sums, const StreamArgs& on) {
  conv1x1_grad_weight({size_of(size), tensor_view(x), tensor_view(grad), tensor_view(weight), tensor_view(bias),
                       scales[0], scales[1], ranges[0], ranges[1], reinterpret_cast<float*>(sums)},
                      stream(on));
}

inline void bind_conv1x1(py::module_& m) {
  m.def("conv1x1_forward", &forward, "1x1 convolution with ReLU and dropout.");
  m.def("conv1x1_epilogue", &epilogue, "Bias, ReLU and dropout of a product, in place.");
  m.def("conv1x1_mask", &mask, "The gradient that ReLU and dropout let pass.");
  m.def("conv1x1_grad_weight", &grad_weight, "Gradients of weight and bias of a 1x1 convolution of few outputs.");
}

}  // namespace fcnkern::cuda
