// The launchers of max_pool2d for Python.
#pragma once

#include <array>

#include "bindings.h"
#include "max_pool2d.h"

namespace fcnkern::cuda {

// size: planes, depth, height, width, out_height, out_width; window: kernel, stride and padding, rows before columns.
template <void (*kLaunch)(const MaxPool2dParams&, const Stream&)>
inline void max_pool2d(const std::array<int64_t, 6>& size, const std::array<int, 6>& window, int type, bool relu,
                       uintptr_t x, uintptr_t y, uintptr_t winners, const StreamArgs& on) {
  const auto narrow = [&](int index) { return static_cast<int>(size[index]); };
  const PoolShape shape{size[0],   narrow(1), narrow(2), narrow(3), narrow(4), narrow(5), window[0],
                        window[1], window[2], window[3], window[4], window[5]};
  kLaunch({shape, static_cast<DType>(type), relu, reinterpret_cast<void*>(x), reinterpret_cast<void*>(y),
           reinterpret_cast<uint8_t*>(winners)},
          stream(on));
}

inline void bind_max_pool2d(pybind11::module_& m) {
  m.def("max_pool2d_fwd", &max_pool2d<max_pool2d_fwd>, "Max pooling, and its winners.");
  m.def("max_pool2d_bwd", &max_pool2d<max_pool2d_bwd>, "Gradient of a max pooling.");
}

}  // namespace fcnkern::cuda
