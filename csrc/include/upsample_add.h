// Transposed convolution (no padding) plus a cropped skip.
#pragma once

#include <cstdint>

#include "isa.h"
#include "views.h"

namespace fcnkern {

// x, weight and their gradients are dense arrays of the accumulation type: double for fp64, else float.
struct DeconvParams {
  int64_t images, inputs, outputs, height, width;  // height, width: of x
  int64_t kernel[2], stride[2];
  int64_t begin[2], end[2];  // the window of the full output that y holds: rows and columns
  bool depthwise;            // weight is outputs x kernel, else inputs x outputs x kernel
  bool shared;               // depthwise: one kernel for all channels
  const void* x;
  const void* weight;
  TensorView y;  // images x outputs x window: the output, or its gradient
  int threads;
};

struct UpsampleAddParams {
  DeconvParams deconv;
  TensorView skip;         // the cropped window; null: no skip
  int64_t skip_channels;   // of features; 0: skip holds scores
  TensorView skip_weight;  // outputs x skip_channels
  TensorView skip_bias;    // outputs
  double skip_scale;
};

}  // namespace fcnkern

// y = transposed convolution of x + skip scores, or + skip_weight (skip_scale * skip) + skip_bias.
FCNKERN_DECLARE(void, upsample_add_forward, const UpsampleAddParams&)
// Given y's gradient in `y`, writes that of x (from weight), images x inputs x height x width.
FCNKERN_DECLARE(void, deconv_grad_input, const DeconvParams&, void* grad_x)
// Given y's gradient in `y`, writes that of weight (from x).
FCNKERN_DECLARE(void, deconv_grad_weight, const DeconvParams&, void* grad_weight)
