// A class's scores inside one cell, and sums over the cell's pixels by geometric sequences.
//
// Inside a cell a score is bilinear, so along a row its exponential is a geometric sequence, and from row to row both
// its first term and its ratio are geometric too: three or four exponentials per class and cell give those of all
// pixels. Scores are taken relative to the corners' maxima: a common bilinear function of the pixel, which softmax
// does not see.
#pragma once

#include "fast_math.cuh"
#include "ptx.cuh"

namespace fcnkern::cuda {

struct Corners {
  float top_left, top_right, bottom_left, bottom_right;
};

// The score at pixel (row v, column r) of a cell: z + r dz + v gz + r v dg, in binary orders.
struct Bilinear {
  float z, dz, gz, dg;
};

// Where pixel (0, 0) lies between the points, and the steps from pixel to pixel.
struct Fractions {
  float y, step_y, x, step_x;
};

// A score of a class that is masked by the lowest number of its type stays finite: it meets moments that are 0.
constexpr float kLowest = -1e38f;

__device__ __forceinline__ Bilinear bilinear(const Corners& s, const Fractions& at) {
  const float left = s.bottom_left - s.top_left, right = s.bottom_right - s.top_right;
  const float first = fmaf(at.y, left, s.top_left);
  const float across = fmaf(at.y, right, s.top_right) - first;
  const float twist = right - left;
  return {fmaxf(fmaf(at.x, across, first) * kLog2E, kLowest), across * (at.step_x * kLog2E),
          fmaf(at.x, twist, left) * (at.step_y * kLog2E), twist * (at.step_y * at.step_x * kLog2E)};
}

// The largest difference of neighbouring corners, and of those before; NaN where one is.
__device__ __forceinline__ float largest_jump(float jump, const Corners& s) {
  jump = max_or_nan(max_or_nan(jump, fabsf(s.top_right - s.top_left)), fabsf(s.bottom_right - s.bottom_left));
  return max_or_nan(max_or_nan(jump, fabsf(s.bottom_left - s.top_left)), fabsf(s.bottom_right - s.top_right));
}

// By what the ratio of a row differs from that of the row before, x in binary orders: where GENTLE 2^x - 1, near 0 to a
// few units in the last place of the result, for the use of high powers of 2^x (a polynomial of x / 8 for |x| up to
// 6.6); else 2^x, which may be so small that 2^x - 1 were -1.
template <bool GENTLE>
__device__ __forceinline__ float twist_of(float x) {
  if constexpr (!GENTLE) return exp2_fast(x);
  const float y = x * (0.125f * kLn2);
  float p = fmaf(y, 1.0f / 720, 1.0f / 120);
  p = fmaf(y, fmaf(y, p, 1.0f / 24), 1.0f / 6);
  p = fmaf(y * y, fmaf(y, p, 0.5f), y);
  p = p * (p + 2.0f);
  p = p * (p + 2.0f);
  return p * (p + 2.0f);
}

template <bool GENTLE>
__device__ __forceinline__ float twisted(float ratio, float twist) {
  return GENTLE ? fmaf(ratio, twist, ratio) : ratio * twist;
}

// Adds one class's exponentials to the sums of all K x K pixels: 3 exponentials (4 unless GENTLE) and 1.5 operations a
// pixel.
template <int K, bool GENTLE>
__device__ __forceinline__ void add_exponentials(float (&sums)[K * K], const Bilinear& score) {
  float start = exp2_fast(score.z), ratio = exp2_fast(score.dz);
  const float down = exp2_fast(score.gz), twist = twist_of<GENTLE>(score.dg);
#pragma unroll
  for (int v = 0; v < K; ++v) {
    float term = start;
    const float square = ratio * ratio;
#pragma unroll
    for (int r = 0; r < K; r += 2) {
      sums[v * K + r] += term;
      sums[v * K + r + 1] = fmaf(term, ratio, sums[v * K + r + 1]);
      term *= square;
    }
    start *= down;
    ratio = twisted<GENTLE>(ratio, twist);
  }
}

// Sums over the cell's pixels of something, by 1, row, column and row * column.
struct Moments {
  float plain, by_row, by_column, by_both;
};

// Moments of factor * exponential, rows and columns counted from 1: by Horner's rule from the last pixel, 2 operations a
// pixel and 3 exponentials (4 unless GENTLE).
template <int K, bool GENTLE>
__device__ __forceinline__ Moments moments(const float (&factors)[K * K], const Bilinear& score) {
  float ratio = exp2_fast(fmaf(K - 1.0f, score.dg, score.dz));
  const float down = exp2_fast(score.gz), untwist = twist_of<GENTLE>(-score.dg);
  Moments m{0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int v = K - 1; v >= 0; --v) {
    float p = factors[v * K + K - 1], q = p;
#pragma unroll
    for (int r = K - 2; r >= 0; --r) {
      p = fmaf(p, ratio, factors[v * K + r]);
      q = fmaf(q, ratio, p);
    }
    m.plain = fmaf(m.plain, down, p);
    m.by_row = fmaf(m.by_row, down, m.plain);
    m.by_column = fmaf(m.by_column, down, q);
    m.by_both = fmaf(m.by_both, down, m.by_column);
    ratio = twisted<GENTLE>(ratio, untwist);
  }
  const float start = exp2_fast(score.z);
  return {m.plain * start, m.by_row * start, m.by_column * start, m.by_both * start};
}

// Linear weights of the two points of an axis, for pixel i = 1, 2, ... of a cell: low: low + i low_step, high likewise.
// Where a point is missing its weight is 0 (`zero`) or goes to the other.
struct BorderWeights {
  float low, low_step, high, high_step;

  __device__ __forceinline__ BorderWeights(float start, float step, bool has_low, bool has_high, bool zero) {
    const float before = start - step;
    const bool low_alone = !zero && !has_high, high_alone = !zero && !has_low;
    low = !has_low ? 0.0f : low_alone ? 1.0f : 1.0f - before;
    low_step = !has_low || low_alone ? 0.0f : -step;
    high = !has_high ? 0.0f : high_alone ? 1.0f : before;
    high_step = !has_high || high_alone ? 0.0f : step;
  }

  // The same, kept in registers.
  __device__ __forceinline__ void keep() {
    low = opaque(low), low_step = opaque(low_step), high = opaque(high), high_step = opaque(high_step);
  }
};

// Gradients of the corners from the moments.
__device__ __forceinline__ Corners shares(const Moments& m, const BorderWeights& y, const BorderWeights& x) {
  const float left = fmaf(x.low_step, m.by_column, x.low * m.plain);
  const float left_by_row = fmaf(x.low_step, m.by_both, x.low * m.by_row);
  const float right = fmaf(x.high_step, m.by_column, x.high * m.plain);
  const float right_by_row = fmaf(x.high_step, m.by_both, x.high * m.by_row);
  return {fmaf(y.low_step, left_by_row, y.low * left), fmaf(y.low_step, right_by_row, y.low * right),
          fmaf(y.high_step, left_by_row, y.high * left), fmaf(y.high_step, right_by_row, y.high * right)};
}

}  // namespace fcnkern::cuda
