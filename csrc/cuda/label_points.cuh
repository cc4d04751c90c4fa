// The argmax of source points.
//
// A *code* is the label of a point, in 16 bits, and two marks beside it. Scores are bilinear in a cell, so a
// class that is the (lowest) argmax of all four corners is that of all outputs between them: the cell is
// decided. Corners outside a zero border are 0 for every class and are left out.
#pragma once

#include "label_column.cuh"
#include "ptx.cuh"

namespace fcnkern::cuda {

constexpr unsigned kLabelOfCode = 0xffff;
// A NaN, an infinity or a huge score: differences of the point's scores mean nothing.
constexpr unsigned kNotPlain = 1u << 16;
// Infinities or NaN that can decide an output next to the point, whatever the argmax.
constexpr unsigned kUndecidable = 1u << 17;
constexpr float kHuge = 8.507059173023462e37f;  // 2^126

// What is known of a point after some of its classes. NaN is the largest score, and the first one wins.
struct PointMaximum {
  float best, least;
  int label;

  // Finds the label where no score is NaN; where one is, `best` is NaN from it on and the label still to be found.
  __device__ __forceinline__ void take(float score, int class_index) {
    label = score > best ? class_index : label;
    best = max_or_nan(best, score), least = fminf(least, score);
  }

  // Takes what a lane that looked at other classes of the same point has found.
  __device__ __forceinline__ void merge(const PointMaximum& other) {
    const bool nan = best != best, other_nan = other.best != other.best;
    const bool tie = (nan && other_nan) || best == other.best;
    const bool theirs = tie ? other.label < label : !nan && (other_nan || other.best > best);
    best = theirs ? other.best : best, label = theirs ? other.label : label;
    least = fminf(least, other.least);
  }

  // Where a tap of weight 0 multiplies (not `skip_zero`), an infinite score of any class gives NaN, which
  // wins.
  __device__ __forceinline__ unsigned code(bool skip_zero) const {
    const bool plain = best < kHuge && least > -kHuge;
    const bool decidable = best < -kNegativeInfinity && (skip_zero || least > kNegativeInfinity);
    return static_cast<unsigned>(label) | (plain ? 0 : kNotPlain) | (decidable ? 0 : kUndecidable);
  }
};

// The binary logarithm of the lanes that share a point, so that loads of channels_last scores are contiguous
// too.
inline int split_of_points(const Scores& scores) { return scores.strides[1] == 1 && scores.c >= 4 ? 2 : 0; }

// The first of the classes first, first + lanes, .. whose score is NaN.
template <class T>
__device__ __forceinline__ int first_nan(const char* place, bool bfloat, int64_t next_class, int classes, int first,
                                         int lanes) {
  int c = first;
#pragma unroll 1
  for (; c + lanes < classes; c += lanes) {
    const float score = score_at<T>(place + c * next_class, bfloat);
    if (score != score) break;
  }
  return c;
}

// The maximum over the classes sub, sub + lanes, .. of a point whose scores lie `next_class` bytes apart.
template <class T>
__device__ __forceinline__ PointMaximum point_maximum(const char* point, bool bfloat, int64_t next_class,
                                                      int classes, int sub, int lanes) {
  PointMaximum found{kNegativeInfinity, -kNegativeInfinity, sub};
  const char* place = point + sub * next_class;
  const int64_t step = next_class * lanes;
  int c = sub;
#pragma unroll 1
  for (; c + 3 * lanes < classes; c += 4 * lanes) {
    float score[4];
#pragma unroll
    for (int i = 0; i < 4; ++i, place += step) score[i] = score_at<T>(place, bfloat);
#pragma unroll
    for (int i = 0; i < 4; ++i) found.take(score[i], c + i * lanes);
  }
#pragma unroll 1
  for (; c < classes; c += lanes, place += step) found.take(score_at<T>(place, bfloat), c);
  if (found.best != found.best) found.label = first_nan<T>(point, bfloat, next_class, classes, sub, lanes);
  return found;
}

// A rectangle of source points or of cells, counted row by row.
struct Rectangle {
  int y, x, rows, columns;
  unsigned inverse;  // 2^31 / columns, rounded up

  static __device__ __forceinline__ Rectangle of(int y, int x, int rows, int columns) {
    return {y, x, rows, columns, 0x7fffffffu / static_cast<unsigned>(columns) + 1};
  }
  __device__ __forceinline__ int index(int row, int column) const { return (row - y) * columns + column - x; }
  // Number i; exact while i * columns < 2^31.
  __device__ __forceinline__ CellPlace place(int i) const {
    const int row = static_cast<int>(__umulhi(2 * static_cast<unsigned>(i), inverse));
    return {y + row, x + i - row * columns};
  }
};

// Calls `put(y, x, maximum)` for the points of a rectangle of an image, a lane or 1 << `split` neighbouring
// ones to a point. Reads every score of them once; nine instructions a score.
template <class T, class Put>
__device__ __forceinline__ void each_point(const Scores& scores, int64_t image, const Rectangle& area,
                                           int split, Put&& put) {
  const int items = (area.rows * area.columns) << split, lanes = 1 << split;
  const int classes = static_cast<int>(scores.c), lane = threadIdx.x % kWarp;
  const bool bfloat = scores.type == DType::kBF16;
#pragma unroll 1
  for (int first = threadIdx.x - lane; first < items; first += blockDim.x) {
    const int item = first + lane, point = min(item, items - 1) >> split, sub = item & (lanes - 1);
    const auto [y, x] = area.place(point);
    const char* place = point_address<T>(scores, image, y, x);
    PointMaximum found =
        point_maximum<T>(place, bfloat, scores.strides[1] * int64_t{sizeof(T)}, classes, sub, lanes);
    for (int other = 1; other < lanes; other *= 2)
      found.merge({__shfl_xor_sync(kAllLanes, found.best, other),
                   __shfl_xor_sync(kAllLanes, found.least, other),
                   __shfl_xor_sync(kAllLanes, found.label, other)});
    if (item < items && sub == 0) put(y, x, found);
  }
}

}  // namespace fcnkern::cuda
