// Max pooling of dense maps, with the ReLU before it.
#pragma once

#include <cstdint>

#include "dtypes.h"
#include "stream.h"

namespace fcnkern::cuda {

// The winner of a window all of whose elements a ReLU has closed.
constexpr int kNoWinner = 255;

// Maps are planes of lines of pixels of `depth` numbers: N*C planes of depth 1, in channels_last N planes of depth C.
struct PoolShape {
  int64_t planes;
  int depth;
  int height, width, out_height, out_width;
  int kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x;
};

struct MaxPool2dParams {
  PoolShape shape;
  DType type;
  bool relu;
  void* x;           // the input, or its gradient
  void* y;           // the output, or its gradient
  uint8_t* winners;  // as y, the place of each window's largest element; may be null in the forward
};

// y and winners from x.
void max_pool2d_fwd(const MaxPool2dParams& params, const Stream& stream);
// x's gradient from y's, which each window gives to its winner.
void max_pool2d_bwd(const MaxPool2dParams& params, const Stream& stream);

}  // namespace fcnkern::cuda
