// Label map of upsampled scores.
#pragma once

#include <cstdint>

#include "dtypes.h"
#include "isa.h"
#include "resample_axis.h"

namespace fcnkern {

// N x C x h x w scores; strides in elements.
struct Scores {
  const void* data;
  DType type;
  int64_t n, c, h, w;
  int64_t strides[4];
};

// Scores and how they become n x rows.n_out x columns.n_out.
struct Upsampling {
  Scores scores;
  ResampleAxis rows, columns;
  // A tap of weight 0 is no tap. Otherwise it multiplies, and makes NaN of infinity.
  bool skip_zero_weights;
};

struct UpsampleArgmaxParams {
  Upsampling upsampling;
  LabelType label_type;
  void* labels;      // N x H x W, contiguous
  void* confidence;  // probability of the label, likewise; double for double scores, else float; may be null
  int threads;
};

}  // namespace fcnkern

FCNKERN_DECLARE(void, upsample_argmax, const fcnkern::UpsampleArgmaxParams&)
