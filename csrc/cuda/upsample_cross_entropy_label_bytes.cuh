// The labels of a cell's pixels where all that are not ignored count alike and classes are bytes: a row of labels is one
// or two words in registers, and all pixels of a class are found at once. The usual cell takes one step, one that a
// border crosses two.
#pragma once

#include "upsample_cross_entropy_labels.cuh"

namespace fcnkern::cuda {

constexpr int kByteClasses = 256;  // at most
constexpr uint32_t kMark = 0x80808080u;

// The labels of K rows of up to K pixels. `left`: 0x80 in each byte whose pixel was not taken yet.
template <int K>
struct LabelBytes {
  static constexpr int kRowWords = K < 4 ? 1 : K / 4, kWords = K * kRowWords;
  uint32_t labels[kWords], left[kWords];

  // Appends four pixels; the first ones leave.
  __device__ __forceinline__ void push(uint32_t bytes, uint32_t marks) {
#pragma unroll
    for (int i = 0; i + 1 < kWords; ++i) labels[i] = labels[i + 1], left[i] = left[i + 1];
    labels[kWords - 1] = bytes, left[kWords - 1] = marks;
  }

  // The label of a pixel that is left, or false where none is.
  __device__ __forceinline__ bool next(uint32_t& label) const {
    uint32_t marks = 0, bytes = 0;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      bytes = left[i] != 0 ? labels[i] : bytes;
      marks = left[i] != 0 ? left[i] : marks;
    }
    label = bytes >> ((__ffs(static_cast<int>(marks)) - 8) & 31) & 255u;
    return marks != 0;
  }

  // Where the pixels of a class are, and their sums.
  struct Found {
    uint64_t where;  // bit v K + r: pixel (v, r)
    uint32_t sums;   // as LabelSums has them
  };

  // Takes the pixels that have a label. Marks count 128.
  __device__ __forceinline__ Found take(uint32_t label) {
    const uint32_t same = label * 0x01010101u;
    Found found{0, 0};
    uint32_t both = 0;
#pragma unroll
    for (int v = 0; v < K; ++v) {
      uint32_t number = 0, column = 0, bits = 0;
#pragma unroll
      for (int i = 0; i < kRowWords; ++i) {
        uint32_t& rest = left[v * kRowWords + i];
        const uint32_t differ = labels[v * kRowWords + i] ^ same;
        const uint32_t marks = ~(((differ & ~kMark) + ~kMark) | differ) & rest;
        rest ^= marks;
        number = __dp4a(marks, 0x01010101u, number);
        column = __dp4a(marks, i == 0 ? 0x03020100u : 0x07060504u, column);
        bits = __dp4a(marks, i == 0 ? 0x08040201u : 0x80402010u, bits);
      }
      found.where |= static_cast<uint64_t>(bits >> 7) << (v * K);
      found.sums += number * (kNumber / 128 + v * (kRow / 128)) + column * (kColumn / 128);
      both += v * column;
    }
    found.sums += both / 128;
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

// The labels of a cell that count, read one after another.
template <int K>
__device__ __forceinline__ void gather(LabelBytes<K>& bytes, const LossPixels& p, const Window& cell, int64_t offset,
                                       bool& wrong) {
#pragma unroll 1
  for (int i = 0; i < LabelBytes<K>::kWords; ++i) {
    const int v = i / LabelBytes<K>::kRowWords, first = i % LabelBytes<K>::kRowWords * 4;
    uint32_t labels = 0, marks = 0;
#pragma unroll 1
    for (int r = first; r < min(first + 4, v < cell.height ? cell.width : 0); ++r) {
      const int64_t label = label_at(p.target, offset + v * p.target.strides[1] + r * p.target.strides[2]);
      const int kind = checked_class(label, p, cell, v, r, wrong);
      if (kind == kIgnored) continue;
      labels |= static_cast<uint32_t>(kind) << (8 * (r & 3));
      marks |= 0x80u << (8 * (r & 3));
    }
    bytes.push(labels, marks);
  }
}

// The labels of a cell: as they are, four at a time, where they lie so.
template <int K>
__device__ __forceinline__ LabelBytes<K> load_labels(const LossPixels& p, const Window& cell, bool& wrong) {
  LabelBytes<K> bytes{};
  const LabelMap& map = p.target;
  const int64_t offset = cell.n * map.strides[0] + cell.y * map.strides[1] + cell.x * map.strides[2];
  const uint8_t* row = static_cast<const uint8_t*>(map.data) + offset;
  const bool aligned = (reinterpret_cast<uintptr_t>(row) | static_cast<uintptr_t>(map.strides[1]) | cell.width) % 4 == 0;
  if (K >= 4 && map.type == LabelType::kU8 && map.strides[2] == 1 && aligned) {
#pragma unroll
    for (int i = 0; i < LabelBytes<K>::kWords; ++i) {
      const int v = i / LabelBytes<K>::kRowWords, word = i % LabelBytes<K>::kRowWords;
      if (v >= cell.height || 4 * word >= cell.width) continue;
      bytes.labels[i] = reinterpret_cast<const uint32_t*>(row + v * map.strides[1])[word];
      bytes.left[i] = kMark;
    }
    return bytes;
  }
  gather(bytes, p, cell, offset, wrong);
  return bytes;
}

// Reads the labels of one cell.
template <int K>
__device__ __forceinline__ CellLabels read_label_bytes(const LossPixels& p, const Window& cell,
                                                       const LabelSums<true>& sums) {
  CellLabels found{0, false};
  LabelBytes<K> bytes = load_labels<K>(p, cell, found.wrong);
#pragma unroll 1
  for (uint32_t label; bytes.next(label);) {
    const auto same = bytes.take(label);
    const int low = __ffs(static_cast<int>(same.where)), high = __ffs(static_cast<int>(same.where >> 32));
    const int pixel = low != 0 ? low - 1 : high + 31;
    const int kind = checked_class(label, p, cell, pixel / K, pixel % K, found.wrong);
    if (kind == kIgnored) continue;
    found.kept |= same.where;
    sums.add_run(kind, same.sums);
  }
  return found;
}

}  // namespace fcnkern::cuda
