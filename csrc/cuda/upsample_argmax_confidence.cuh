// The softmax probability of each label: 1 / sum of exp(score - score of the label).
#pragma once

#include "label_column.cuh"
#include "labels.cuh"
#include "fast_math.cuh"
#include "upsample_argmax.h"

namespace fcnkern::cuda {

// The scores of one class at the outputs of a column: with kExact of any corners, else of such that are far
// from infinite.
template <bool kExact>
__device__ __forceinline__ void column_scores(float4 corners, Weights across, Weights along, int slots,
                                              bool skip_zero, float (&scores)[kMostOutputs]) {
  const Line line = line_of(corners, across, along);
  const float2 ends = ends_of(corners, across, skip_zero);
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r) {
    if (ends_outputs(r, slots)) break;
    scores[r] = kExact ? at_output(ends, along, r, skip_zero) : line.start + r * line.step;
  }
}

// What the rounding of a score may leave at most; more is left of huge ones.
constexpr float kMostLeft = 1.0f / 64, kNan = __builtin_nanf("");

// The probability of the label of each output of a column. Without kExact a term is 2^(score * log2(e) - b),
// with b the label's score times log2(e), rounded; what the rounding leaves is in all terms and, to first
// order, in the numerator.
template <bool kExact, class T>
__device__ __forceinline__ void probabilities(const Column<T>& column, const int (&label)[kMostOutputs],
                                              int classes, int slots, bool skip_zero,
                                              float (&probability)[kMostOutputs]) {
  float best[kMostOutputs], scores[kMostOutputs], total[kMostOutputs];
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r) {
    if (r == 0 || label[r] != label[r - 1])
      column_scores<kExact>(column.corners(label[r]), column.across, column.along, kMostOutputs, skip_zero,
                            scores);
    best[r] = kExact ? scores[r] : scores[r] * kLog2E, total[r] = 0;
    const float left = kExact ? 0.0f : fmaf(scores[r], kLog2E, -best[r]);
    probability[r] = fabsf(left) < kMostLeft ? fmaf(left, kLn2, 1.0f) : kNan;
  }
#pragma unroll 1
  for (int c = 0; c < classes; ++c) {
    column_scores<kExact>(column.corners(c), column.across, column.along, slots, skip_zero, scores);
#pragma unroll
    for (int r = 0; r < kMostOutputs; ++r) {
      if (ends_outputs(r, slots)) break;
      total[r] += exp2_fast(kExact ? (scores[r] - best[r]) * kLog2E : fmaf(scores[r], kLog2E, -best[r]));
    }
  }
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r) probability[r] = __fdividef(probability[r], total[r]);
}

}  // namespace fcnkern::cuda
