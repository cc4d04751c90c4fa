// The class of the greatest score at each output of kLanes cells at a time. A score is bilinear between the corners of
// its cell, so it is linear along a row.
//
// Per row of a cell and class: four loads, about seven operations, then a multiply-add, a compare and two selects
// per output. Classes that cannot win anywhere in the block are left out beforehand.
#pragma once

#include "simd.h"

namespace fcnkern::FCNKERN_ISA {

// One number for each corner of a cell.
template <class T>
struct Corners {
  Vec<T> top_left, top_right, bottom_left, bottom_right;
};

// The source points left and right of the cells in the rows above and below, for class 0.
struct CornerPoints {
  const float *top_left, *top_right, *bottom_left, *bottom_right;
  int64_t class_stride;

  CornerPoints from_cell(int64_t cell) const {
    return {top_left + cell, top_right + cell, bottom_left + cell, bottom_right + cell, class_stride};
  }
};

FCNKERN_INLINE Corners<float> load_corners(const CornerPoints& at, int64_t c) {
  const int64_t offset = c * at.class_stride;
  return {load(at.top_left + offset), load(at.top_right + offset), load(at.bottom_left + offset),
          load(at.bottom_right + offset)};
}

// The first of some outputs of one row of cells: weight of the lower points; of the right points, and its step.
struct RowPosition {
  float below;
  VecF right;
  float step;
};

struct Line {
  VecF start, step;
};

// Scores of one class along a row of cells.
FCNKERN_INLINE Line line_of(const Corners<float>& s, const RowPosition& position) {
  const VecF left = s.top_left + position.below * (s.bottom_left - s.top_left);
  const VecF right = s.top_right + position.below * (s.bottom_right - s.top_right);
  const VecF slope = right - left;
  return {left + position.right * slope, slope * position.step};
}

// Classes that some output of the block may have as its largest score: a bilinear score lies between its corners,
// so a class whose largest corner is below another's smallest is out. Exact; ties stay. Returns their number.
static inline int surviving_classes(const CornerPoints& at, int classes, int32_t* survivors) {
  VecF bound = splat(-HUGE_VALF);
  for (int c = 0; c < classes; ++c) {
    const Corners<float> s = load_corners(at, c);
    bound = vmax(vmin(vmin(s.top_left, s.top_right), vmin(s.bottom_left, s.bottom_right)), bound);
  }
  int count = 0;
  for (int c = 0; c < classes; ++c) {
    const Corners<float> s = load_corners(at, c);
    const VecF largest = vmax(vmax(s.top_left, s.top_right), vmax(s.bottom_left, s.bottom_right));
    survivors[count] = c;
    count += any(largest >= bound);
  }
  return count;
}

// label[r] and best[r]: class and score of the winner at output r of each cell.
template <int kOutputs>
void winners(const CornerPoints& at, const int32_t* classes, int count, const RowPosition& position, VecI* label,
             VecF* best) {
  VecF top[kOutputs];
  VecI winner[kOutputs];
#pragma GCC unroll 8
  for (int r = 0; r < kOutputs; ++r) {
    top[r] = splat(-HUGE_VALF);
    winner[r] = VecI{};
  }
  for (int q = 0; q < count; ++q) {
    const Line line = line_of(load_corners(at, classes[q]), position);
    const VecI c = splat(classes[q]);
#pragma GCC unroll 8
    for (int r = 0; r < kOutputs; ++r) {
      const VecF score = r == 0 ? line.start : line.start + static_cast<float>(r) * line.step;
      const VecI wins = score > top[r];
      top[r] = wins ? score : top[r];
      winner[r] = wins ? c : winner[r];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kOutputs; ++r) {
    label[r] = winner[r];
    best[r] = top[r];
  }
}

}  // namespace fcnkern::FCNKERN_ISA
