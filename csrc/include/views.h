// A tensor as the kernels see it.
#pragma once

#include <cstdint>

#include "dtypes.h"

namespace fcnkern {

// Address, type, and strides in elements: of N x C x H x W for images, in the order stated for others. Axes
// that are not there have stride 0. A null `data` means no tensor.
struct TensorView {
  void* data;
  DType dtype;
  int64_t stride[4];
};

}  // namespace fcnkern
