// A column: at most 8 outputs, one above the other, between the same four source points; and the argmax of
// each.
#pragma once

#include "elements.cuh"
#include "label_tiles.h"

namespace fcnkern::cuda {

// Rows of outputs in a part of a cell at most (MAX_SLOTS of fcnkern/backends/_axes.py).
constexpr int kMostOutputs = 8;

// Whether the loop over the outputs of a column can end before output r, a constant, where parts have `slots`
// rows. Two questions that the whole block answers alike, instead of one an output.
__device__ __forceinline__ bool ends_outputs(int r, int slots) { return (r == 2 || r == 4) && slots <= r; }

// Classes whose survival is a bit of one word.
constexpr int kClassChunk = 32;

constexpr float kNegativeInfinity = -__builtin_inff();

// Scores of 16 bits, of either type: so there is one instantiation less for two more instructions a score.
struct Bits16 {
  uint16_t bits;
};

__device__ __forceinline__ float load_score(const float* place, bool) { return __ldg(place); }

__device__ __forceinline__ float load_score(const Bits16* place, bool bfloat) {
  const unsigned bits = __ldg(&place->bits);
  const float as_half = __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
  return bfloat ? __uint_as_float(bits << 16) : as_half;
}

template <class T>
__device__ __forceinline__ float score_at(const char* address, bool bfloat) {
  return load_score(reinterpret_cast<const T*>(address), bfloat);
}

// Calls `run` with a value of the type that scores are loaded as.
template <class Run>
void with_score_type(DType type, Run&& run) {
  switch (type) {
    case DType::kF32: return run(float{});
    case DType::kF16:
    case DType::kBF16: return run(Bits16{});
    default: throw std::invalid_argument("fcnkern: the CUDA kernels take fp32, fp16 and bf16");
  }
}

// The points before and after a cell of an axis. A missing point is replaced by its neighbour; before the
// first point of a clamped axis, F.interpolate's taps are the first point and, with weight 0, the second.
struct Points {
  int before, after;
};

__device__ __forceinline__ Points cell_points(int cell, int points, bool zero) {
  return {max(cell - 1, 0), min(max(cell, zero ? 0 : 1), points - 1)};
}

// The cell of a column of outputs, whose point may lie outside the source.
__device__ __forceinline__ int cell_of_point(int point, int points) { return min(max(point + 1, 0), points); }

// Weights of the points before and after an output at `fraction` of a cell, and what the next output's differ
// by.
struct Weights {
  float before, after, before_step, after_step;
};

__device__ __forceinline__ Weights cell_weights(int cell, int points, float fraction, float step, bool zero) {
  const bool inner = cell >= 1 && cell < points;
  const bool has_before = zero ? cell >= 1 : inner, has_after = zero ? cell < points : inner;
  const float alone = zero ? 0.0f : 1.0f;
  return {has_before ? 1 - fraction : alone, has_after ? fraction : 0.0f, has_before ? -step : 0.0f,
          has_after ? step : 0.0f};
}

// The source of a column: the address of the corner above on the left, and the ways in bytes from it to the
// others and to the next class.
template <class T>
struct Column {
  const char* corner;
  int64_t right, down, next_class;
  Weights across, along;
  bool bfloat;

  // The scores of a class at the corners, left before right, upper before lower.
  __device__ __forceinline__ float4 corners(unsigned class_index) const {
    const char* left = corner + class_index * next_class;
    const char* lower = left + down;
    return {score_at<T>(left, bfloat), score_at<T>(left + right, bfloat), score_at<T>(lower, bfloat),
            score_at<T>(lower + right, bfloat)};
  }
};

struct CellPlace {
  int y, x;
};

// Where the score of class 0 at a point of an image lies; 64 bits, as a stride can be of any size.
template <class T>
__device__ __forceinline__ const char* point_address(const Scores& scores, int64_t image, int y, int x) {
  const int64_t place = image * scores.strides[0] + y * scores.strides[2] + x * scores.strides[3];
  return static_cast<const char*>(scores.data) + place * static_cast<int64_t>(sizeof(T));
}

template <class T>
__device__ __forceinline__ Column<T> column_at(const LabelTiles& plan, int64_t image, CellPlace cell,
                                               float start_y, float fraction_x) {
  constexpr int64_t kBytes = sizeof(T);
  const Scores& scores = plan.scores;
  const int h = static_cast<int>(scores.h), w = static_cast<int>(scores.w);
  const Points rows = cell_points(cell.y, h, plan.zero), columns = cell_points(cell.x, w, plan.zero);
  return {point_address<T>(scores, image, rows.before, columns.before),
          columns.after > columns.before ? scores.strides[3] * kBytes : 0,
          rows.after > rows.before ? scores.strides[2] * kBytes : 0,
          scores.strides[1] * kBytes,
          cell_weights(cell.x, w, fraction_x, 0.0f, plan.zero),
          cell_weights(cell.y, h, start_y, plan.y.step, plan.zero),
          scores.type == DType::kBF16};
}

// A class's score in a column: start + r * step at its output r.
struct Line {
  float start, step;
};

__device__ __forceinline__ Line line_of(float4 corners, Weights across, Weights along) {
  const float upper = corners.x * across.before + corners.y * across.after;
  const float lower = corners.z * across.before + corners.w * across.after;
  return {upper * along.before + lower * along.after, upper * along.before_step + lower * along.after_step};
}

// The weighted sum; with `skip_zero` a weight of 0 stands for no tap, so that 0 * inf counts for nothing.
__device__ __forceinline__ float blend(float a, float weight_a, float b, float weight_b, bool skip_zero) {
  const float first = skip_zero && weight_a == 0 ? 0.0f : a * weight_a;
  const float second = skip_zero && weight_b == 0 ? 0.0f : b * weight_b;
  return first + second;
}

// The same score as of any corners, infinite ones too: upper and lower ends of the column, blended for its
// output r.
__device__ __forceinline__ float2 ends_of(float4 corners, Weights across, bool skip_zero) {
  return {blend(corners.x, across.before, corners.y, across.after, skip_zero),
          blend(corners.z, across.before, corners.w, across.after, skip_zero)};
}

__device__ __forceinline__ float at_output(float2 ends, Weights along, int r, bool skip_zero) {
  return blend(ends.x, along.before + r * along.before_step, ends.y, along.after + r * along.after_step,
               skip_zero);
}

// Whether a score, NaN being the largest, is better than the best of the classes before it.
__device__ __forceinline__ bool is_better(float score, float best) {
  return !(score <= best) && best == best;
}

// Labels of the outputs of a column; those beyond the rows of a part mean nothing.
struct Winners {
  float best[kMostOutputs];
  int label[kMostOutputs];

  __device__ __forceinline__ Winners() {
#pragma unroll
    for (int r = 0; r < kMostOutputs; ++r) best[r] = kNegativeInfinity, label[r] = 0;
  }
  __device__ __forceinline__ void take(int r, bool better, float score, int class_index) {
    best[r] = better ? score : best[r], label[r] = better ? class_index : label[r];
  }
};

// Winners of any scores. Fifteen instructions an output and class.
template <class T>
__device__ __forceinline__ void exact_winners(const Column<T>& column, int classes, int slots, bool skip_zero,
                                              Winners& winners) {
#pragma unroll 1
  for (int c = 0; c < classes; ++c) {
    const float2 ends = ends_of(column.corners(c), column.across, skip_zero);
#pragma unroll
    for (int r = 0; r < kMostOutputs; ++r) {
      if (ends_outputs(r, slots)) break;
      const float score = at_output(ends, column.along, r, skip_zero);
      winners.take(r, is_better(score, winners.best[r]), score, c);
    }
  }
}

// Neighbouring lanes that look at columns of one cell: their mask, number and the rank of the calling lane.
struct Peers {
  unsigned mask;
  int number, rank;
};

__device__ __forceinline__ Peers aligned_peers(int number) {
  const int lane = threadIdx.x % kWarp, rank = lane & (number - 1);
  return {((1u << number) - 1) << (lane - rank), number, rank};
}

// Bit i: class first + i has a corner at or above `bound`, a score that some class has in the whole cell. A
// bilinear score lies between its corners, so the others win nowhere; ties stay. The peers share the classes.
template <class T>
__device__ __forceinline__ unsigned survivors(const Column<T>& column, float bound, int first, int classes,
                                              const Peers& peers) {
  const int number = min(classes - first, kClassChunk);
  unsigned alive = 0;
#pragma unroll 1
  for (int i = peers.rank; i < number; i += peers.number) {
    const float4 s = column.corners(first + i);
    if (fmaxf(fmaxf(s.x, s.y), fmaxf(s.z, s.w)) >= bound) alive |= 1u << i;
  }
  return __reduce_or_sync(peers.mask, alive);
}

// Winners of plain scores among the classes that survive: a multiply-add, a compare and two selects an output
// and class. What a lane finds depends on its own cell alone, not on the cells of the other lanes.
template <class T>
__device__ __forceinline__ void plain_winners(const Column<T>& column, float bound, int classes, int slots,
                                              const Peers& peers, Winners& winners) {
#pragma unroll 1
  for (int first = 0; first < classes; first += kClassChunk) {
    unsigned alive = survivors(column, bound, first, classes, peers);
#pragma unroll 1
    while (alive != 0) {
      const int c = first + __ffs(static_cast<int>(alive)) - 1;
      alive &= alive - 1;
      const Line line = line_of(column.corners(c), column.across, column.along);
#pragma unroll
      for (int r = 0; r < kMostOutputs; ++r) {
        if (ends_outputs(r, slots)) break;
        const float score = line.start + r * line.step;
        winners.take(r, score > winners.best[r], score, c);
      }
    }
  }
}

}  // namespace fcnkern::cuda
