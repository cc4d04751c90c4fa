// Max pooling of dense maps, with the ReLU before it.
#pragma once

#include <cstdint>

#include "dtypes.h"
#include "isa.h"

namespace fcnkern {

// The place of a window's largest element, row by row in the window; kNoWinner where a ReLU closed all of them.
constexpr int kNoWinner = 255;

struct MaxPool2dParams {
  int64_t images, channels;
  int64_t size[2], out_size[2];
  int64_t kernel[2], stride[2], padding[2];  // at most kNoWinner elements
  DType dtype;
  bool channels_last, relu;
  void* x;           // images x channels x size, or its gradient
  void* y;           // images x channels x out_size, or its gradient
  uint8_t* winners;  // as y; may be null in the forward
  int threads;
};

}  // namespace fcnkern

// y and winners from x.
FCNKERN_DECLARE(void, max_pool2d_forward, const MaxPool2dParams&)
// x's gradient from y's, which each window gives to its winner.
FCNKERN_DECLARE(void, max_pool2d_backward, const MaxPool2dParams&)
