// Launchers of the transposed convolution with a cropped skip, and what they take.
#pragma once

#include <cstdint>

#include "stream.h"
#include "views.h"

namespace fcnkern::cuda {

enum class DeconvKind : int { kDense = 0, kDepthwise = 1, kBilinear = 2 };

// A transposed convolution without padding. All tensors have one element type.
struct Deconv {
  TensorView x;       // images x inputs x height x width
  TensorView weight;  // dense: inputs x outputs x kernel; depthwise: outputs x 1 x kernel; bilinear: none
  TensorView y;       // images x outputs x size: the window of the output that starts at `begin`, or its gradient
  DeconvKind kind;
  int images, inputs, outputs, height, width;
  int kernel[2], stride[2], begin[2], size[2];
};

struct UpsampleAdd {
  Deconv deconv;
  TensorView skip;  // the cropped window, scores or features; null: none
  int features;     // channels of the skip where it holds features; 0: it holds scores
  TensorView skip_weight;  // outputs x features
  TensorView skip_bias;    // outputs, or null
  float skip_scale;
};

void upsample_add_fwd(const UpsampleAdd& params, const Stream& stream);
// Writes x's gradient from y's, to images x inputs x height x width.
void upsample_add_grad_x(const Deconv& params, const TensorView& grad_x, const Stream& stream);
// Writes weight's gradient in `parts` partial sums of fp32, each as dense as the weight, over as many parts of the images.
void upsample_add_grad_weight(const Deconv& params, float* partials, int parts, const Stream& stream);

}  // namespace fcnkern::cuda
