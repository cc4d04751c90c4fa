// The 1x1 classifier: a product over channels with bias, ReLU and dropout in its epilogue.
#pragma once

#include <cstdint>

#include "isa.h"
#include "views.h"

namespace fcnkern {

struct Conv1x1Params {
  int64_t images, inputs, outputs, height, width;
  TensorView x, y;
  TensorView weight;  // outputs x inputs
  TensorView bias;    // outputs
  double scale;       // factor on x
  bool relu;
  double dropout_p;  // 0: no dropout
  uint64_t seed;
  int threads;
};

struct Conv1x1MaskParams {
  int64_t images, channels, height, width;
  TensorView grad;
  TensorView y;  // the output, where ReLU was applied
  TensorView result;
  double dropout_p;
  uint64_t seed;
  int threads;
};

}  // namespace fcnkern

// y = dropout(relu(scale * weight x + bias)). The gradient of x is the same with the two channel axes of
// weight swapped.
FCNKERN_DECLARE(void, conv1x1_forward, const Conv1x1Params&)
// Given y's gradient in `y`, writes those of weight and bias into those that are there.
FCNKERN_DECLARE(void, conv1x1_grad_weight, const Conv1x1Params&)
// result = gradient before ReLU and dropout. With ReLU the output tells which elements were kept (y > 0);
// without, the dropout words are drawn again.
FCNKERN_DECLARE(void, conv1x1_mask, const Conv1x1MaskParams&)
