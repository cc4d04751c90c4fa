// One axis of a linear two-tap resampling, as fcnkern.resample.Axis gives it.
#pragma once

#include <cstdint>

namespace fcnkern {

// Output Y reads the source at s = Y * step + shift: floor(s) with weight 1 - frac(s), floor(s) + 1 with
// weight frac(s). zero: taps outside the source count as score 0; otherwise s is clamped to [0, n_in - 1].
struct ResampleAxis {
  int64_t n_in;
  int64_t n_out;
  double step;
  double shift;
  bool zero;
};

}  // namespace fcnkern
