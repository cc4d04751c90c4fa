// What upsample_argmax does with the winners of kLanes neighbouring cells at a time: their probabilities, and where
// labels go. Scores are finite and below 2^126.
#pragma once

#include <type_traits>

#include "winners.h"

namespace fcnkern::FCNKERN_ISA {

// 1 / sum over all classes of exp(score - best): the softmax probability of the winner. One exponential per class
// and output; differences are cut at 2^-126, far below the rounding of the sum.
template <int kOutputs>
void probabilities(const CornerPoints& at, int classes, const RowPosition& position, const VecF* best,
                   VecF* probability) {
  constexpr float kLog2E = 1.44269504f;
  VecF total[kOutputs] = {};
  for (int c = 0; c < classes; ++c) {
    const Line line = line_of(load_corners(at, c), position);
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
    const Vec<Word> packed = __builtin_convertvector(words, Vec<Word>);
    std::memcpy(row + first[0], &packed, sizeof packed);  // where no Word need be aligned
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
