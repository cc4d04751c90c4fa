// Low-resolution scores and the linear two-tap resampling that takes them to full size.
#pragma once

#include <cstdint>

#include "dtypes.h"

namespace fcnkern {

// One axis, as fcnkern.resample.Axis gives it.
// Output Y reads the source at s = Y * step + shift: floor(s) with weight 1 - frac(s), floor(s) + 1 with
// weight frac(s). zero: taps outside the source count as score 0; otherwise s is clamped to [0, n_in - 1].
struct ResampleAxis {
  int64_t n_in;
  int64_t n_out;
  double step;
  double shift;
  bool zero;
};

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

}  // namespace fcnkern
