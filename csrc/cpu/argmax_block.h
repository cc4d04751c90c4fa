// Argmax over the classes for kLanes neighbouring cells at a time. Scores are finite and below 2^126.
//
// Per row of a cell and class: four loads, about seven operations, then a multiply-add, a compare and two selects
// per output. Classes that cannot win anywhere in the block are left out beforehand.
#pragma once

#include <type_traits>

#include "simd.h"

namespace fcnkern::FCNKERN_ISA {

// The source points left and right of the cells in the rows above and below, for class 0.
struct Corners {
  const float *top_left, *top_right, *bottom_left, *bottom_right;
  int64_t class_stride;

  Corners from_cell(int64_t cell) const {
    return {top_left + cell, top_right + cell, bottom_left + cell, bottom_right + cell, class_stride};
  }
};

struct CornerScores {
  VecF top_left, top_right, bottom_left, bottom_right;
};

FCNKERN_INLINE CornerScores load_corners(const Corners& at, int64_t c) {
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

// Scores of one class along a row.
FCNKERN_INLINE Line line_of(const Corners& at, int64_t c, const RowPosition& position) {
  const CornerScores s = load_corners(at, c);
  const VecF left = s.top_left + position.below * (s.bottom_left - s.top_left);
  const VecF right = s.top_right + position.below * (s.bottom_right - s.top_right);
  const VecF slope = right - left;
  return {left + position.right * slope, slope * position.step};
}

// Classes that some output of the block may have as its largest score: a bilinear score lies between its corners,
// so a class whose largest corner is below another's smallest is out. Exact; ties stay. Returns their number.
static int surviving_classes(const Corners& at, int classes, int32_t* survivors) {
  VecF bound = splat(-HUGE_VALF);
  for (int c = 0; c < classes; ++c) {
    const CornerScores s = load_corners(at, c);
    bound = vmax(vmin(vmin(s.top_left, s.top_right), vmin(s.bottom_left, s.bottom_right)), bound);
  }
  int count = 0;
  for (int c = 0; c < classes; ++c) {
    const CornerScores s = load_corners(at, c);
    const VecF largest = vmax(vmax(s.top_left, s.top_right), vmax(s.bottom_left, s.bottom_right));
    survivors[count] = c;
    count += any(largest >= bound);
  }
  return count;
}

// label[r] and best[r]: class and score of the winner at output r of each cell.
template <int kOutputs>
void winners(const Corners& at, const int32_t* classes, int count, const RowPosition& position, VecI* label,
             VecF* best) {
  VecF top[kOutputs];
  VecI winner[kOutputs];
  for (int r = 0; r < kOutputs; ++r) {
    top[r] = splat(-HUGE_VALF);
    winner[r] = VecI{};
  }
  for (int q = 0; q < count; ++q) {
    const Line line = line_of(at, classes[q], position);
    const VecI c = splat(classes[q]);
#pragma GCC unroll 8
    for (int r = 0; r < kOutputs; ++r) {
      const VecF score = line.start + static_cast<float>(r) * line.step;
      const VecI wins = score > top[r];
      top[r] = wins ? score : top[r];
      winner[r] = wins ? c : winner[r];
    }
  }
  for (int r = 0; r < kOutputs; ++r) {
    label[r] = winner[r];
    best[r] = top[r];
  }
}

// 1 / sum over all classes of exp(score - best): the softmax probability of the winner. One exponential per class
// and output; differences are cut at 2^-126, far below the rounding of the sum.
template <int kOutputs>
void probabilities(const Corners& at, int classes, const RowPosition& position, const VecF* best,
                   VecF* probability) {
  constexpr float kLog2E = 1.44269504f;
  VecF total[kOutputs] = {};
  for (int c = 0; c < classes; ++c) {
    const Line line = line_of(at, c, position);
#pragma GCC unroll 8
    for (int r = 0; r < kOutputs; ++r) {
      const VecF score = line.start + static_cast<float>(r) * line.step;
      total[r] += exp2(vmax(splat(-126.0f), (score - best[r]) * kLog2E));
    }
  }
  for (int r = 0; r < kOutputs; ++r) probability[r] = 1.0f / total[r];
}

template <size_t kBytes>
using Unsigned = std::conditional_t<
    kBytes == 1, uint8_t,
    std::conditional_t<kBytes == 2, uint16_t, std::conditional_t<kBytes == 4, uint32_t, uint64_t>>>;

// Writes the labels of kOutputs outputs per cell, from output `offset` of each cell on. `pixels` and `first` are
// the cells' numbers of outputs and first outputs, relative to `row`.
template <class Label, int kOutputs>
void scatter_labels(const VecI* label, const int32_t* pixels, const int32_t* first, int offset, Label* row) {
  using Word = Unsigned<sizeof(Label) * kOutputs>;
  VecU64 words = {};
#pragma GCC unroll 8
  for (int r = 0; r < kOutputs; ++r)
    words |= __builtin_convertvector(label[r], VecU64) << (8 * sizeof(Label) * r);
  if (offset == 0 && all(load(pixels) == splat(kOutputs))) {
    store(reinterpret_cast<Word*>(row + first[0]), __builtin_convertvector(words, Vec<Word>));
    return;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const int count = pixels[lane] - offset;
    Label* out = row + first[lane] + offset;
    const Word word = static_cast<Word>(words[lane]);
    if (count >= kOutputs)
      std::memcpy(out, &word, sizeof word);
    else
      for (int r = 0; r < count; ++r) out[r] = static_cast<Label>(word >> (8 * sizeof(Label) * r));
  }
}

template <int kOutputs>
void scatter_probabilities(const VecF* probability, const int32_t* pixels, const int32_t* first, int offset,
                           float* row) {
  for (int lane = 0; lane < kLanes; ++lane)
    for (int r = 0; r < kOutputs && r < pixels[lane] - offset; ++r)
      row[first[lane] + offset + r] = probability[r][lane];
}

}  // namespace fcnkern::FCNKERN_ISA
