// Rows of source points for the vectorised kernels: one row of all classes, converted to float, in the order of an
// axis' cells, so that kLanes neighbouring cells load as vectors whatever the layout of the scores.
#pragma once

#include "axis.h"
#include "scratch.h"
#include "upsampling.h"

namespace fcnkern::FCNKERN_ISA {

// Source index of the left and right point of each cell. Where cells slide by one point, the right points are the
// left ones moved by one. Behind the last cell its right point repeats, up to `capacity` entries.
class PointTable {
 public:
  PointTable(const Cells<float>& cells, int64_t capacity)
      : shared_(cells.sliding), storage_(2 * static_cast<size_t>(capacity) * sizeof(int32_t)) {
    left_ = reinterpret_cast<int32_t*>(storage_.data());
    right_ = left_ + capacity;
    for (int64_t i = 0; i < capacity; ++i) {
      left_[i] = i < cells.count ? cells.left[i] : cells.right[cells.count - 1];
      right_[i] = cells.right[i < cells.count ? i : cells.count - 1];
    }
  }

  bool shared() const { return shared_; }
  const int32_t* left(int64_t cell) const { return left_ + cell; }
  const int32_t* right(int64_t cell) const { return right_ + cell; }

 private:
  bool shared_;
  Scratch storage_;
  int32_t *left_, *right_;
};

// A part of a row: `length` points per class, class c from left + c * length on.
struct SourceRow {
  float *left, *right;
  int64_t part, row;  // what it holds: image and part of the row; source row
  bool tame;          // all scores are finite and below 2^126
};

// Points first..last-1 are neighbours in the source.
struct Neighbours {
  int first, last;

  Neighbours(const int32_t* points, int length) : first(0) {
    while (first + 1 < length && !(points[first] >= 0 && points[first + 1] == points[first] + 1)) ++first;
    last = first + 1;
    while (last < length && points[last] == points[last - 1] + 1) ++last;
  }
};

template <class Stored>
float point(const Stored* line, int64_t stride, int32_t index) {
  return index < 0 ? 0.0f : static_cast<float>(line[index * stride]);
}

// One class after the other.
template <class Stored>
void copy_planes(const Stored* source, const Scores& scores, const int32_t* points, int length, float* out) {
  const int64_t stride = scores.strides[3];
  const Neighbours run(points, stride == 1 ? length : 1);
  for (int64_t c = 0; c < scores.c; ++c, source += scores.strides[1], out += length) {
    for (int i = 0; i < run.first; ++i) out[i] = point(source, stride, points[i]);
    if (points[run.first] >= 0) {
      const Stored* line = source + points[run.first] * stride;
      for (int i = run.first; i < run.last; ++i) out[i] = static_cast<float>(line[i - run.first]);
    } else {
      out[run.first] = 0;
    }
    for (int i = run.last; i < length; ++i) out[i] = point(source, stride, points[i]);
  }
}

// All classes of a point lie together: a few of them at a time, point by point.
template <class Stored>
void copy_pixels(const Stored* source, const Scores& scores, const int32_t* points, int length, float* out) {
  constexpr int kClasses = 16;
  for (int64_t c = 0; c < scores.c; c += kClasses, source += kClasses, out += kClasses * length) {
    const int count = scores.c - c < kClasses ? static_cast<int>(scores.c - c) : kClasses;
    for (int i = 0; i < length; ++i) {
      const int64_t at = points[i] * scores.strides[3];
      if (points[i] < 0)
        for (int k = 0; k < count; ++k) out[k * length + i] = 0;
      else
        for (int k = 0; k < count; ++k) out[k * length + i] = static_cast<float>(source[at + k]);
    }
  }
}

FCNKERN_INLINE bool all_tame(const float* values, int64_t count) {
  VecF sum = {};
  for (int64_t i = 0; i < count; i += kLanes) sum += (load(values + i) * 4.0f) * 0.0f;
  return all(sum == VecF{});
}

// Points of row `row` of image n; row -1 is outside the source. The length is a multiple of kLanes.
static void load_points(const Scores& scores, int64_t n, int64_t row, const int32_t* points, int length, float* out) {
  if (row < 0) {
    std::memset(out, 0, sizeof(float) * static_cast<size_t>(scores.c * length));
    return;
  }
  const int64_t offset = n * scores.strides[0] + row * scores.strides[2];
  const bool pixels = scores.strides[1] == 1 && scores.strides[3] != 1;
  const auto run = [&](auto stored) {
    const auto* source = static_cast<const decltype(stored)*>(scores.data) + offset;
    if (pixels)
      copy_pixels(source, scores, points, length, out);
    else
      copy_planes(source, scores, points, length, out);
  };
  switch (scores.type) {
    case DType::kBF16: return run(BFloat16{});
    case DType::kF16: return run(Float16{});
    default: return run(float{});
  }
}

}  // namespace fcnkern::FCNKERN_ISA
