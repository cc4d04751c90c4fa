// What the two kernels of confusion_matrix do with pieces of label maps.
#pragma once

#include "label_counts.cuh"
#include "label_tile.cuh"

namespace fcnkern::cuda {

__device__ __forceinline__ LabelRule target_rule(const CountParams& params) {
  return {params.classes, params.has_ignore, params.ignore_index};
}

// The target label of 8 bits that does not count; none of 8 bits where there is none.
__device__ __forceinline__ unsigned ignored_byte(const CountParams& params) {
  const bool is_byte = params.has_ignore && params.target.type == LabelType::kU8;
  return is_byte ? static_cast<unsigned>(params.ignore_index) : kNothing;
}

// A block's copy of the counts: blocks that run together seldom share one.
__device__ __forceinline__ unsigned long long* own_counts(const CountParams& params) {
  const auto bins = static_cast<int64_t>(params.classes) * params.classes;
  return params.counts + static_cast<int64_t>(blockIdx.x % params.copies) * bins;
}

// Where the targets of a row of a tile begin, in elements.
template <class T>
__device__ __forceinline__ int64_t target_row(const LabelMap& target, const Tile<T>& tile, int y) {
  return tile.table.image * target.strides[0] + y * target.strides[1] + tile.table.x0 * target.strides[2];
}

// Adds the pixels of a tile that its patterns label. With `whole` rows of targets are without gaps and
// aligned to pieces of kPixels.
template <int kPixels, class T>
__device__ __forceinline__ void count_patterns(const CountParams& params, const Tile<T>& tile, bool whole,
                                               PairCounter& counter) {
  const LabelMap& target = params.target;
  const LabelRule rule = target_rule(params);
  const TileTable& table = tile.table;
  constexpr int kPieces = kTileColumns / kPixels;
  const int row_bits = tile.shape.row_bits;
#pragma unroll 1
  for (int item = threadIdx.x; item < table.parts * kPieces << row_bits; item += kTileThreads) {
    const int row = item / kPieces, part = row >> row_bits, below = row - (part << row_bits);
    const int x = item % kPieces * kPixels;
    if (below >= table.count[part] || x >= table.columns) continue;
    const int y = table.y[part] + below;
    const int64_t line = static_cast<int64_t>(table.image) * params.h + y;
    const uint16_t* guessed = tile.patterns + part * kTileColumns + x;
    const int64_t place = target_row(target, tile, y) + x * target.strides[2];
    const auto pixel = [&](int i) { return line * params.w + table.x0 + x + i; };
    if (whole && x + kPixels <= table.columns) {
      unsigned truth[kPixels / 2], guess[kPixels / 2];
      const RawPiece piece = load_piece<kPixels>(label_address(target.data, target.type, place), target.type);
#pragma unroll
      for (int i = 0; i < kPixels / 4; ++i) {
        const uint2 words = reinterpret_cast<const uint2*>(guessed)[i];
        guess[2 * i] = words.x, guess[2 * i + 1] = words.y;
      }
      take_apart(piece, target.type, rule, truth);
      counter.take(truth, guess, pixel);
    } else {
#pragma unroll 1
      for (int i = 0; i < min(kPixels, table.columns - x); ++i) {
        const int64_t label = label_at(target.data, target.type, place + i * target.strides[2]);
        counter.take_one(rule.narrowed(label), guessed[i], [&] { return pixel(i); });
      }
    }
  }
}

// Adds a column of a tile that its patterns leave out.
template <class T>
__device__ __forceinline__ void count_column(const CountParams& params, const Tile<T>& tile, int y, int x,
                                             int count, const int (&label)[kMostOutputs],
                                             PairCounter& counter) {
  const LabelMap& target = params.target;
  const LabelRule rule = target_rule(params);
  const int64_t place = tile.table.image * target.strides[0] + y * target.strides[1] + x * target.strides[2];
  const int64_t first = (static_cast<int64_t>(tile.table.image) * params.h + y) * params.w + x;
  unsigned truth[kMostOutputs];
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r)
    truth[r] = r < count ? rule.narrowed(label_at(target.data, target.type, place + r * target.strides[1]))
                         : kNothing;
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r)
    counter.take_one(truth[r], static_cast<unsigned>(label[r]), [&] { return first + r * params.w; });
}

}  // namespace fcnkern::cuda
