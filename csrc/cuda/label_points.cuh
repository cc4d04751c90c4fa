// The argmax of source points.
//
// A *code* is the label of a point, in 16 bits, and two marks beside it. Scores are bilinear in a cell, so a
// class that is the (lowest) argmax of all four corners is that of all outputs between them: the cell is
// decided. Corners outside a zero border are 0 for every class and are left out.
#pragma once

#include "label_column.cuh"

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

  __device__ __forceinline__ void take(float score, int class_index) {
    const bool better = is_better(score, best);
    best = better ? score : best, label = better ? class_index : label;
    least = fminf(least, score);
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

// The maximum over the classes sub, sub + lanes, .. of a point whose scores lie `next_class` bytes apart.
template <class T>
__device__ __forceinline__ PointMaximum point_maximum(const char* place, bool bfloat, int64_t next_class,
                                                      int classes, int sub, int lanes) {
  PointMaximum found{kNegativeInfinity, -kNegativeInfinity, sub};
  place += sub * next_class;
  next_class *= lanes;
  int c = sub;
#pragma unroll 1
  for (; c + 3 * lanes < classes; c += 4 * lanes) {
    float score[4];
#pragma unroll
    for (int i = 0; i < 4; ++i, place += next_class) score[i] = score_at<T>(place, bfloat);
#pragma unroll
    for (int i = 0; i < 4; ++i) found.take(score[i], c + i * lanes);
  }
#pragma unroll 1
  for (; c < classes; c += lanes, place += next_class) found.take(score_at<T>(place, bfloat), c);
  return found;
}

// A rectangle of source points or of cells.
struct Rectangle {
  int y, x, rows, columns;

  __device__ __forceinline__ int index(int row, int column) const { return (row - y) * columns + column - x; }
};

// Calls `put(y, x, maximum)` for the points of a rectangle of an image, a lane or 1 << `split` neighbouring
// ones to a point. Reads every score of them once; eleven instructions a score.
template <class T, class Put>
__device__ __forceinline__ void each_point(const Scores& scores, int64_t image, const Rectangle& area,
                                           int split, Put&& put) {
  const int items = (area.rows * area.columns) << split, lanes = 1 << split;
  const int classes = static_cast<int>(scores.c), lane = threadIdx.x % kWarp;
  const bool bfloat = scores.type == DType::kBF16;
#pragma unroll 1
  for (int first = threadIdx.x - lane; first < items; first += blockDim.x) {
    const int item = first + lane, point = min(item, items - 1) >> split, sub = item & (lanes - 1);
    const int row = point / area.columns, y = area.y + row, x = area.x + point - row * area.columns;
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
