// Counts of one label among those of a block, in all lanes at a time.
#pragma once

#include <cstring>

#include "upsample_cross_entropy_block.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

typedef uint32_t VecU32 __attribute__((vector_size(sizeof(VecI))));
typedef uint8_t Bytes __attribute__((vector_size(sizeof(VecI))));  // four labels of every lane

// Sums over the four bytes of every lane, and the same with each times its place, 0 to 3. Below 256.
FCNKERN_INLINE VecU32 sum_of(Bytes bytes) { return (VecU32)bytes * 0x01010101u >> 24; }
FCNKERN_INLINE VecU32 sum_by_place(Bytes bytes) { return (VecU32)bytes * 0x00010203u >> 24; }

FCNKERN_INLINE uint8_t least_byte(Bytes bytes) {
  uint8_t each[sizeof(Bytes)], least = 0xff;
  std::memcpy(each, &bytes, sizeof each);
  for (uint8_t byte : each) least = byte < least ? byte : least;
  return least;
}

// What LabelMoments adds for one label, and the next higher one in the block, or kNone.
struct LabelCount {
  VecU64 moments;
  uint8_t next;
};

// Words of labels are [v * row + i * stride + lane], i < kWords, in `rows` rows. Calls visit(v, i, word).
template <int kWords, class Visit>
FCNKERN_INLINE void each_word(const uint32_t* words, int64_t stride, int64_t row, int rows, Visit visit) {
  for (int v = 0; v < rows; ++v)
    for (int i = 0; i < kWords; ++i)
      visit(v, i, (Bytes)load(reinterpret_cast<const int32_t*>(words + v * row + i * stride)));
}

template <int kWords>
uint8_t least_label(const uint32_t* words, int64_t stride, int64_t row, int rows) {
  Bytes least = Bytes{} - 1;
  each_word<kWords>(words, stride, row, rows, [&](int, int, Bytes word) { least = vmin(word, least); });
  return least_byte(least);
}

// Copies words to out[(2 * v + i) * kLanes + lane], with kNone in place of labels below `least`.
template <int kWords>
void keep_labels(const uint32_t* words, int64_t stride, int64_t row, int rows, uint8_t least, uint32_t* out) {
  std::memset(out, 0xff, 2 * rows * kLanes * sizeof *out);
  each_word<kWords>(words, stride, row, rows, [&](int v, int i, Bytes word) {
    store(reinterpret_cast<int32_t*>(out + (2 * v + i) * kLanes), (VecI)(word | (Bytes)(word < least)));
  });
}

// Seven operations for a word and some forty for the sums.
template <int kWords>
LabelCount count_label(const uint32_t* words, int64_t stride, int64_t row, int rows, uint8_t label) {
  const uint8_t following = static_cast<uint8_t>(label + 1);
  Bytes count[2] = {}, down[2] = {}, beyond = Bytes{} + static_cast<uint8_t>(0xff - following);
  each_word<kWords>(words, stride, row, rows, [&](int v, int i, Bytes word) {
    const Bytes is = (Bytes)(word == label), distance = word - following;  // of lower labels beyond kNone's
    count[i] -= is;
    down[i] += is & static_cast<uint8_t>(v);
    beyond = vmin(distance, beyond);
  });
  const VecU32 right_half = sum_of(count[1]), right_half_down = sum_of(down[1]);
  const VecU32 one = sum_of(count[0]) + right_half, all_down = sum_of(down[0]) + right_half_down;
  const VecU32 right = sum_by_place(count[0]) + sum_by_place(count[1]) + 4 * right_half;
  const VecU32 down_right = sum_by_place(down[0]) + sum_by_place(down[1]) + 4 * right_half_down;
  const VecU64 low = __builtin_convertvector(one | all_down << 16, VecU64);
  const VecU64 high = __builtin_convertvector(right | down_right << 16, VecU64);
  return {low | high << 32, static_cast<uint8_t>(least_byte(beyond) + following)};
}

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
