// The labels of a cell's pixels where all that are not ignored count alike and classes are bytes: a row of labels is one
// or two words, of which all pixels of one class are found at once. The usual row takes one step, one that a border
// crosses two.
#pragma once

#include "upsample_cross_entropy_labels.cuh"

namespace fcnkern::cuda {

constexpr int kByteClasses = 256;  // at most

// A row of up to four labels, or of up to eight. `left`: 1 in each byte whose pixel is not counted yet.
template <int K>
struct LabelRow {
  static constexpr int kWords = K / 4 > 0 ? K / 4 : 1;
  uint32_t labels[kWords], left[kWords];

  __device__ __forceinline__ bool any_left() const {
    uint32_t any = 0;
    for (int i = 0; i < kWords; ++i) any |= left[i];
    return any != 0;
  }

  // The label of the first pixel that is left. There is one.
  __device__ __forceinline__ uint32_t first() const {
    const bool second = kWords > 1 && left[0] == 0;
    const uint32_t marks = second ? left[kWords - 1] : left[0], bytes = second ? labels[kWords - 1] : labels[0];
    return bytes >> (__ffs(static_cast<int>(marks)) - 1) & 255u;
  }

  // The pixels that are left and have a label, each times a byte of `weights`, summed.
  struct Found {
    uint32_t marks[kWords];

    __device__ __forceinline__ uint32_t sum(uint32_t first_weights, uint32_t last_weights) const {
      uint32_t total = __dp4a(marks[0], first_weights, 0u);
      if (kWords > 1) total = __dp4a(marks[kWords - 1], last_weights, total);
      return total;
    }
  };

  // Takes the pixels that have a label.
  __device__ __forceinline__ Found take(uint32_t label) {
    constexpr uint32_t kLow = 0x7f7f7f7fu;
    Found found;
    for (int i = 0; i < kWords; ++i) {
      const uint32_t differ = labels[i] ^ (label * 0x01010101u);
      found.marks[i] = ~(((differ & kLow) + kLow) | differ) >> 7 & left[i];
      left[i] ^= found.marks[i];
    }
    return found;
  }
};

// The class of a label, or kIgnored; tells of a wrong one.
__device__ __forceinline__ int checked_class(int64_t label, const LossPixels& p, const Window& cell, int v, int r,
                                             bool& wrong) {
  const int kind = class_of(label, p);
  if (kind != p.classes) return kind;
  wrong = true;
  LabelReport{p.report}.tell(place_of(p, cell.n, cell.y + v, cell.x + r), label);
  return kIgnored;
}

// Row v of a cell: its labels as they are, four at a time, or one after another those that count.
template <int K>
__device__ __forceinline__ LabelRow<K> load_row(const LossPixels& p, const Window& cell, int v, bool& wrong) {
  LabelRow<K> row{};
  const LabelMap& map = p.target;
  const int64_t offset = cell.n * map.strides[0] + (cell.y + v) * map.strides[1] + cell.x * map.strides[2];
  const uint8_t* bytes = static_cast<const uint8_t*>(map.data) + offset;
  if (map.type == LabelType::kU8 && map.strides[2] == 1 && cell.width % 4 == 0 && reinterpret_cast<uintptr_t>(bytes) % 4 == 0) {
#pragma unroll
    for (int i = 0; i < LabelRow<K>::kWords; ++i) {
      if (4 * i >= cell.width) continue;
      row.labels[i] = reinterpret_cast<const uint32_t*>(bytes)[i];
      row.left[i] = 0x01010101u;
    }
    return row;
  }
#pragma unroll
  for (int i = 0; i < LabelRow<K>::kWords; ++i) {
#pragma unroll 1
    for (int r = 4 * i; r < min(4 * i + 4, cell.width); ++r) {
      const int kind = checked_class(label_at(map, offset + r * map.strides[2]), p, cell, v, r, wrong);
      if (kind == kIgnored) continue;
      row.labels[i] |= static_cast<uint32_t>(kind) << (8 * (r & 3));
      row.left[i] |= 1u << (8 * (r & 3));
    }
  }
  return row;
}

// Reads the labels of one cell.
template <int K>
__device__ __forceinline__ CellLabels read_label_bytes(const LossPixels& p, const Window& cell,
                                                       const LabelSums<true>& sums) {
  CellLabels found{0, false};
#pragma unroll 1
  for (int v = 0; v < cell.height; ++v) {
    LabelRow<K> row = load_row<K>(p, cell, v, found.wrong);
    uint32_t kept = 0;
#pragma unroll 1
    while (row.any_left()) {
      const uint32_t label = row.first();
      const auto same = row.take(label);
      const uint32_t bits = same.sum(0x08040201u, 0x80402010u);
      const int kind = checked_class(label, p, cell, v, __ffs(static_cast<int>(bits)) - 1, found.wrong);
      if (kind == kIgnored) continue;
      kept |= bits;
      const uint32_t number = same.sum(0x01010101u, 0x01010101u), column = same.sum(0x03020100u, 0x07060504u);
      sums.add_run(kind, number * (kNumber + v * kRow) + column * (kColumn + v));
    }
    found.kept |= static_cast<uint64_t>(kept) << (v * K);
  }
  return found;
}

}  // namespace fcnkern::cuda
