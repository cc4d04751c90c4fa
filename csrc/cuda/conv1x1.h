// Launchers of the 1x1 classifier. The product over channels is formed here for few outputs; for many, by a library,
// and then only what surrounds the product is.
#pragma once

#include <cstdint>

#include "stream.h"
#include "views.h"

namespace fcnkern::cuda {

struct Conv1x1Size {
  int64_t images, inputs, outputs, height, width;
};

// Inverted dropout by Philox: element e of N x outputs x H x W is kept iff word e % 4 of
// philox(seed, (e / 4, 0, 1)) >= p * 2^32.
struct Conv1x1Dropout {
  double p;              // 0: none
  const uint64_t* seed;  // on the device
};

struct Conv1x1Params {
  Conv1x1Size size;
  TensorView x, weight, bias, y;  // weight: outputs x inputs
  double scale;                   // factor on the product
  bool relu;
  Conv1x1Dropout dropout;
};

// y = dropout(relu(scale * weight x + bias)), of any number of outputs. The gradient of x is the same with the two
// axes of weight swapped.
void conv1x1_forward(const Conv1x1Params& params, const Stream& stream);

// y = dropout(relu(scale * y + bias)), in place.
void conv1x1_epilogue(const Conv1x1Params& params, const Stream& stream);

struct Conv1x1MaskParams {
  Conv1x1Size size;
  TensorView grad, y, result;  // y: the output, where ReLU was applied
  Conv1x1Dropout dropout;
};

// result = grad where ReLU and dropout let it pass, else 0, and not multiplied by 1 / (1 - p). With ReLU the output
// tells (y > 0); without, the dropout words are formed again.
void conv1x1_mask(const Conv1x1MaskParams& params, const Stream& stream);

// The gradients of weight (outputs x inputs) and bias for the gradient `grad` of at most 64 outputs, both dense; either
// may be absent. `sums` is scratch, `ranges` rows of outputs * (inputs + 1) floats: range r sums pixels from r * span,
// span being a multiple of 256, and the rows are then added in a fixed order.
struct Conv1x1GradWeightParams {
  Conv1x1Size size;
  TensorView x, grad, grad_weight, grad_bias;
  double weight_scale, bias_scale;
  int64_t span, ranges;
  float* sums;
};

void conv1x1_grad_weight(const Conv1x1GradWeightParams& params, const Stream& stream);

}  // namespace fcnkern::cuda
