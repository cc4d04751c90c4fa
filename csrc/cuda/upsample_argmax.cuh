// Stores of a tile's labels.
#pragma once

#include "label_tile.cuh"
#include "labels.cuh"
#include "upsample_argmax.h"

namespace fcnkern::cuda {

// A label map that is written, and the bytes of a piece, to which each of its rows is aligned: 16, 4 or one
// label.
struct LabelStores {
  void* labels;
  LabelType type;
  int piece_bytes;
};

// 16 bytes of labels, from 16-bit labels aligned to as many.
template <class Label>
__device__ __forceinline__ uint4 packed(const uint16_t* labels) {
  if constexpr (sizeof(Label) == 1) {
    const auto* from = reinterpret_cast<const uint4*>(labels);
    const uint4 low = from[0], high = from[1];
    return {__byte_perm(low.x, low.y, 0x6420), __byte_perm(low.z, low.w, 0x6420),
            __byte_perm(high.x, high.y, 0x6420), __byte_perm(high.z, high.w, 0x6420)};
  } else if constexpr (sizeof(Label) == 2) {
    return *reinterpret_cast<const uint4*>(labels);
  } else if constexpr (sizeof(Label) == 4) {
    const uint2 from = *reinterpret_cast<const uint2*>(labels);
    return {from.x & 0xffff, from.x >> 16, from.y & 0xffff, from.y >> 16};
  } else {
    const unsigned from = *reinterpret_cast<const unsigned*>(labels);
    return {from & 0xffff, 0, from >> 16, 0};
  }
}

// Four bytes of two or four labels.
template <class Label>
__device__ __forceinline__ unsigned packed_word(const uint16_t* labels) {
  const auto* from = reinterpret_cast<const unsigned*>(labels);
  return sizeof(Label) == 2 ? from[0] : __byte_perm(from[0], from[sizeof(Label) == 1], 0x6420);
}

// Stores the patterns of a tile, each in all its rows; what they leave out is written over later.
template <class Label, class Piece, class T, class Pack>
__device__ __forceinline__ void store_pieces(const Tile<T>& tile, Label* labels, Pack&& pack) {
  constexpr int kLabels = sizeof(Piece) / sizeof(Label), kPieces = kTileColumns / kLabels;
  const TileTable& table = tile.table;
  const int width = tile.plan.width;
#pragma unroll 1
  for (int item = threadIdx.x; item < table.parts * kPieces; item += kTileThreads) {
    const int part = item / kPieces, x = item % kPieces * kLabels, count = table.count[part];
    if (x >= table.columns) continue;
    const Piece piece = pack(tile.patterns + part * kTileColumns + x);
    const int64_t line = static_cast<int64_t>(table.image) * tile.plan.height + table.y[part];
    Label* to = labels + line * width + table.x0 + x;
#pragma unroll 2
    for (int r = 0; r < count; ++r, to += width) __stwb(reinterpret_cast<Piece*>(to), piece);
  }
}

template <class Label, class T>
__device__ __forceinline__ void store_patterns(const Tile<T>& tile, const LabelStores& stores) {
  auto* labels = static_cast<Label*>(stores.labels);
  if (stores.piece_bytes == 16)
    return store_pieces<Label, uint4>(tile, labels, [](const uint16_t* from) { return packed<Label>(from); });
  if constexpr (sizeof(Label) < 4) {
    if (stores.piece_bytes == 4)
      return store_pieces<Label, unsigned>(tile, labels,
                                           [](const uint16_t* from) { return packed_word<Label>(from); });
  }
  store_pieces<Label, Label>(tile, labels, [](const uint16_t* from) { return static_cast<Label>(*from); });
}

template <class Label>
__device__ __forceinline__ void store_column(void* labels, int64_t place, int64_t width, int count,
                                             const int (&label)[kMostOutputs]) {
  Label* to = static_cast<Label*>(labels) + place;
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r, to += width)
    if (r < count) *to = static_cast<Label>(label[r]);
}

// The labels of a tile.
template <class T>
__device__ __forceinline__ void store_tile(Tile<T>& tile, const LabelStores& stores) {
  if (tile.find_patterns()) {
    switch (stores.type) {
      case LabelType::kU8: store_patterns<uint8_t>(tile, stores); break;
      case LabelType::kI16: store_patterns<uint16_t>(tile, stores); break;
      case LabelType::kI32: store_patterns<unsigned>(tile, stores); break;
      case LabelType::kI64: store_patterns<unsigned long long>(tile, stores); break;
    }
    __syncthreads();
  }
  tile.each_undecided([&](int y, int x, int count, const int (&label)[kMostOutputs]) {
    const int64_t width = tile.plan.width,
                  line = static_cast<int64_t>(tile.table.image) * tile.plan.height + y;
    const int64_t place = line * width + x;
    switch (stores.type) {
      case LabelType::kU8: return store_column<uint8_t>(stores.labels, place, width, count, label);
      case LabelType::kI16: return store_column<int16_t>(stores.labels, place, width, count, label);
      case LabelType::kI32: return store_column<int32_t>(stores.labels, place, width, count, label);
      case LabelType::kI64: return store_column<int64_t>(stores.labels, place, width, count, label);
    }
  });
}

}  // namespace fcnkern::cuda
