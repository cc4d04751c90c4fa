// The fused loss, one lane per cell of low-resolution scores: what a lane knows of its cell, and where its gradient goes.
#pragma once

#include "elements.cuh"
#include "upsample_cross_entropy_labels.cuh"

namespace fcnkern::cuda {

// The scores around a cell. A corner outside has the address of the border point, and with `zero` counts as 0.
// `Offset`: a type that holds the offset of every class.
template <class Score, class Offset>
struct CellScores {
  const Score* at[4];  // top left, top right, bottom left, bottom right
  bool exists[4];
  float factor[4];  // 0 where a corner counts as 0, or 1
  bool zero;
  Offset stride;  // from class to class
  Corners maxima;

  __device__ __forceinline__ float raw(int corner, Offset offset) const {
    return to_float(at[corner][offset]) * factor[corner];
  }
  // One class's scores less the corners' maxima.
  __device__ __forceinline__ Corners corners(Offset offset) const {
    return {raw(0, offset) - maxima.top_left, raw(1, offset) - maxima.top_right,
            raw(2, offset) - maxima.bottom_left, raw(3, offset) - maxima.bottom_right};
  }
  // One class's score at the fractions y, x as F.interpolate has it, 0 * inf included; with `zero`, as a transposed
  // convolution has it, where a weight of 0 is no tap.
  __device__ __forceinline__ float exact(Offset offset, float y, float x) const {
    const float left = tap(1.0f - y, point(0, offset)) + tap(y, point(2, offset));
    const float right = tap(1.0f - y, point(1, offset)) + tap(y, point(3, offset));
    return tap(1.0f - x, left) + tap(x, right);
  }
  __device__ __forceinline__ float point(int corner, Offset offset) const {
    return zero && !exists[corner] ? 0.0f : to_float(at[corner][offset]);
  }
  __device__ __forceinline__ float tap(float weight, float x) const {
    return zero && weight == 0.0f ? 0.0f : weight * x;
  }
  // The largest score of any class at a corner and at the one to its right; NaN where there is one.
  __device__ __forceinline__ void maxima_of(int corner, int classes, float& left, float& right) const {
    left = right = -INFINITY;
    Offset offset = 0;
#pragma unroll 4
    for (int c = 0; c < classes; ++c, offset += stride) {
      left = max_or_nan(to_float(at[corner][offset]), left);
      right = max_or_nan(to_float(at[corner + 1][offset]), right);
    }
    if (zero && !exists[corner]) left = 0.0f;
    if (zero && !exists[corner + 1]) right = 0.0f;
  }
};

// Where the shares of a cell's gradient go, for the class at hand: the points at its right, above and below, which the
// lane owns, and the rim for the two at its left where they belong to the strip on the left.
template <class Offset>
struct ShareTargets {
  float *top, *bottom, *rim;
  Offset top_step, step;  // from class to class
  bool stores_top, stores_bottom, stores_rim;
  bool adds_top, adds_bottom, adds_rim;
  int parts;

  __device__ __forceinline__ void next_class() { top += top_step, bottom += step, rim += 2; }

  // All lanes of the warp take part. The parts of a cell are summed, and the left shares go to the lane on the left.
  __device__ __forceinline__ void store(Corners s) const {
    for (int other = 1; other < parts; other *= 2) {
      s.top_left += __shfl_xor_sync(kAllLanes, s.top_left, other);
      s.top_right += __shfl_xor_sync(kAllLanes, s.top_right, other);
      s.bottom_left += __shfl_xor_sync(kAllLanes, s.bottom_left, other);
      s.bottom_right += __shfl_xor_sync(kAllLanes, s.bottom_right, other);
    }
    const bool has_neighbour = static_cast<int>(threadIdx.x) + parts < kWarp;
    const float next_top = __shfl_down_sync(kAllLanes, s.top_left, parts);
    const float next_bottom = __shfl_down_sync(kAllLanes, s.bottom_left, parts);
    const float top_share = s.top_right + (has_neighbour ? next_top : 0.0f);
    const float bottom_share = s.bottom_right + (has_neighbour ? next_bottom : 0.0f);
    const float top_before = stores_top && adds_top ? *top : 0.0f;
    const float bottom_before = stores_bottom && adds_bottom ? *bottom : 0.0f;
    if (stores_top) *top = top_before + top_share;
    if (stores_bottom) *bottom = bottom_before + bottom_share;
    if (stores_rim) {
      rim[0] = adds_rim ? rim[0] + s.top_left : s.top_left;
      rim[1] = adds_rim ? rim[1] + s.bottom_left : s.bottom_left;
    }
  }
};

// What one lane has summed up: the loss in binary orders, and the weight and the number of the pixels that count.
struct LossSums {
  float loss, weight, number;
};

// Which of a cell's sides have points.
struct Sides {
  bool left, right, top, bottom;
};

// The pixels of steep cells, one after another: slow and exact, three passes over the classes for each. Adds to what the
// targets hold, and returns the loss in binary orders. All lanes of the warp take part; `steep` says for which it matters.
template <int K, class Scores, class Targets>
__device__ __forceinline__ float add_steep_cells(const LossCells& p, const Scores& scores, const Window& cell,
                                              const Fractions& at, const Sides& sides, uint64_t kept, bool steep,
                                              Targets targets) {
  const LossPixels& pixels = p.pixels;
  targets.adds_top = targets.adds_bottom = targets.adds_rim = true;
  float total = 0.0f;
  for (int i = 0; i < K * K; ++i) {
    const int v = i / K, r = i - v * K;
    const bool counts = steep && (kept >> i & 1);
    if (!__any_sync(kAllLanes, counts)) continue;
    const float y = at.y + v * at.step_y, x = at.x + r * at.step_x;
    const BorderWeights by(y, 0.0f, sides.top, sides.bottom, p.zero), bx(x, 0.0f, sides.left, sides.right, p.zero);
    int kind = kIgnored;
    float most = -INFINITY, sum = 0.0f, factor = 0.0f, weight = 0.0f, loss = 0.0f;
    const int64_t place = place_of(pixels, cell.n, cell.y + v, cell.x + r);
    if (counts) {
      kind = class_of(label_at(pixels.target, cell.n * pixels.target.strides[0] +
                                                  (cell.y + v) * pixels.target.strides[1] +
                                                  (cell.x + r) * pixels.target.strides[2]), pixels);
      weight = weight_of(pixels, place);
      factor = target_factor(pixels, kind) * weight;
      for (int c = 0; c < pixels.classes; ++c) most = fmaxf(most, scores.exact(c * scores.stride, y, x));
      for (int c = 0; c < pixels.classes; ++c)
        sum += exp2_fast((scores.exact(c * scores.stride, y, x) - most) * kLog2E);
      loss = factor * log2_fast(sum);
    }
    Targets own = targets;
    for (int c = 0; c < pixels.classes; ++c, own.next_class()) {
      Corners share{0.0f, 0.0f, 0.0f, 0.0f};
      if (counts) {
        const float less = scores.exact(c * scores.stride, y, x) - most;
        const ClassFactors of = class_factors(pixels, c);
        const float aimed = ((kind == c ? of.target : 0.0f) + of.everywhere) * weight;
        if (aimed != 0.0f) loss -= aimed * (less * kLog2E);
        const float g = factor / sum * exp2_fast(less * kLog2E) - aimed;
        // Where there is no point on the left its share would reach the image before: it must not even be NaN.
        const float left = sides.left ? scores.tap(bx.low, g) : 0.0f, right = scores.tap(bx.high, g);
        share = {scores.tap(by.low, left), scores.tap(by.low, right), scores.tap(by.high, left),
                 scores.tap(by.high, right)};
      }
      if (p.grad != nullptr) own.store(share);
    }
    total += loss;
    if (counts && p.losses != nullptr) p.losses[place] = loss * kLn2;
  }
  return total;
}

// Writes factor * log2(sum) of the pixels that count to the map of losses, where store_losses finds it.
template <int K>
__device__ __forceinline__ void store_logarithms(const LossCells& p, const Window& cell, uint64_t kept,
                                                 const float (&sums)[K * K], const float* factors) {
#pragma unroll
  for (int v = 0; v < K; ++v) {
    float* row = p.losses + place_of(p.pixels, cell.n, cell.y + v, cell.x);
#pragma unroll
    for (int r = 0; r < K; ++r) {
      const int i = v * K + r;
      if (kept >> i & 1) row[r] = log2_fast(sums[i]) * (factors == nullptr ? 1.0f : factors[i * kWarp]);
    }
  }
}

// Takes the logarithms and reciprocals of the pixels' sums: `sums` become the factors of the gradient, 0 where a pixel
// does not count, and the loss grows by factor * log2(sum). All lanes of the warp take part. `factors`: this lane's, as
// read_labels wrote them.
template <int K>
__device__ __forceinline__ void finish_pixels(float (&sums)[K * K], uint64_t kept, const float* factors, float& loss) {
  if (factors == nullptr && __all_sync(kAllLanes, kept == ~0ull >> (64 - K * K))) {
#pragma unroll
    for (int i = 0; i < K * K; i += 2) {
      loss += log2_fast(sums[i] * sums[i + 1]);
      sums[i] = reciprocal_fast(sums[i]), sums[i + 1] = reciprocal_fast(sums[i + 1]);
    }
    return;
  }
  if (factors == nullptr) {
#pragma unroll
    for (int i = 0; i < K * K; i += 2) {
      const float one = kept >> i & 1 ? sums[i] : 1.0f, other = kept >> (i + 1) & 1 ? sums[i + 1] : 1.0f;
      loss += log2_fast(one * other);
      sums[i] = kept >> i & 1 ? reciprocal_fast(one) : 0.0f;
      sums[i + 1] = kept >> (i + 1) & 1 ? reciprocal_fast(other) : 0.0f;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < K * K; ++i) {
    const bool counts = kept >> i & 1;
    const float factor = counts ? factors[i * kWarp] : 0.0f, sum = counts ? sums[i] : 1.0f;
    loss = fmaf(factor, log2_fast(sum), loss);
    sums[i] = factor * reciprocal_fast(sum);
  }
}

// The corners' scores that label smoothing aims at: the sum of all classes', times their part in the loss of any pixel.
template <class Scores>
__device__ __forceinline__ Corners smoothed_corners(const LossPixels& pixels, const Scores& scores) {
  Corners sum{0.0f, 0.0f, 0.0f, 0.0f};
  if (pixels.smoothing <= 0.0f) return sum;
  for (int c = 0; c < pixels.classes; ++c) {
    const float part = class_factors(pixels, c).everywhere;
    const Corners s = scores.corners(c * scores.stride);
    sum = {fmaf(part, s.top_left, sum.top_left), fmaf(part, s.top_right, sum.top_right),
           fmaf(part, s.bottom_left, sum.bottom_left), fmaf(part, s.bottom_right, sum.bottom_right)};
  }
  return sum;
}

// Completes the map of losses of a cell that is not steep.
template <int K, class Scores>
__device__ __forceinline__ void store_losses(const LossCells& p, const Scores& scores, const Window& cell,
                                             const Fractions& at, uint64_t kept) {
  const LossPixels& pixels = p.pixels;
  const Bilinear smoothed = bilinear(smoothed_corners(pixels, scores), at);
#pragma unroll 1
  for (int i = 0; i < K * K; ++i) {
    if (!(kept >> i & 1)) continue;
    const int v = i / K, r = i - v * K;
    const int64_t offset = cell.n * pixels.target.strides[0] + (cell.y + v) * pixels.target.strides[1] +
                           (cell.x + r) * pixels.target.strides[2];
    const int kind = class_of(label_at(pixels.target, offset), pixels);
    const auto value = [&](const Bilinear& s) { return s.z + r * s.dz + v * s.gz + r * v * s.dg; };
    const Bilinear of_target = bilinear(scores.corners(kind * scores.stride), at);
    const float aimed = fmaf(class_factors(pixels, kind).target, value(of_target), value(smoothed));
    float* loss = p.losses + place_of(pixels, cell.n, cell.y + v, cell.x + r);  // holds factor * log2(sum)
    *loss = (*loss - aimed) * kLn2;
  }
}

}  // namespace fcnkern::cuda
