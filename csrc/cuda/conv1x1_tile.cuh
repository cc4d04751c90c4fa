// Tiles of the two factors of a skinny product, copied to shared memory ahead of their use.
#pragma once

#include "conv1x1_epilogue.cuh"
#include "ptx.cuh"

namespace fcnkern::cuda {

// result[row, column] = sum over depth of small[row, depth] * large[depth, column], small having few rows. Columns are
// pixels and the depth is channels: the forward pass and, with the axes of weight swapped, the gradient of x. Or columns
// are channels and the depth is pixels: the gradient of weight.
template <class T, class Result>
struct Product {
  PixelAxis pixels;
  int64_t rows, columns, depth;
  Image<T> large;
  const T* small;
  int64_t small_row, small_depth;  // strides; a pixel's are small_pixel
  PixelStrides small_pixel;
  bool small_rows_fast;  // whether neighbours in memory are rows
  int small_run_log;     // where they are not: elements copied together
  int tile_rows;         // of a block
  Image<Result> result;
  int64_t span, range_stride;  // gradient of weight: pixels that a block sums; elements between two such sums
  float* row_sums;             // gradient of weight: sums of small over the depth, or null
};

constexpr int kStages = 3;
constexpr int kMaxRows = 64;
constexpr int kProductWarps = 4, kProductThreads = kProductWarps * kWarp;

// Copies of the tiles of both factors. COLUMNS_FAST: the large tile lies as depth x columns, as it does in memory, else
// as columns x depth. Rows are padded so that the loads of a warp find all banks. What lies outside is cleared.
template <class T, class Result, bool COLUMNS_FAST, bool SUMS_PIXELS>
class Tiles {
 public:
  static constexpr int kDepth = 128 / sizeof(T), kPad = 16 / sizeof(T), kPitch = kDepth + kPad;
  static constexpr int kLargePitch = COLUMNS_FAST ? kColumns + kPad : kPitch;
  static constexpr int kLines = COLUMNS_FAST ? kDepth : kColumns, kLine = COLUMNS_FAST ? kColumns : kDepth;
  static constexpr int kLarge = kLines * kLargePitch;
  static constexpr int kResultPitch = kColumns + 4;
  static constexpr bool kPixelsFast = COLUMNS_FAST != SUMS_PIXELS;

  // Offsets of the columns in both images and numbers of their elements; of the depth for each stage.
  struct Places {
    int64_t large[kColumns], result[kColumns], element[kColumns];
    int64_t large_depth[SUMS_PIXELS ? kStages : 1][kDepth], small_depth[SUMS_PIXELS ? kStages : 1][kDepth];
  };

  static size_t shared_bytes(int tile_rows) {
    const size_t staged = kStages * static_cast<size_t>(kLarge + tile_rows * kPitch) * sizeof(T);
    const size_t result = static_cast<size_t>(tile_rows) * kResultPitch * sizeof(float);
    return sizeof(Places) + (staged > result ? staged : result);
  }

  // A block takes rows [first_row, first_row + rows) and columns [first_column, first_column + columns).
  __device__ Tiles(const Product<T, Result>& product, const Dropout& dropout, unsigned char* memory)
      : p_(product), places_(*reinterpret_cast<Places*>(memory)) {
    staged_ = reinterpret_cast<T*>(memory + sizeof(Places));
    const unsigned row_tiles = ceil_div(static_cast<unsigned>(p_.rows), static_cast<unsigned>(p_.tile_rows));
    const unsigned column_tile = blockIdx.x / row_tiles;
    first_column = static_cast<int64_t>(column_tile) * kColumns;
    first_row = static_cast<int64_t>(blockIdx.x - column_tile * row_tiles) * p_.tile_rows;
    columns = static_cast<int>(min(static_cast<int64_t>(kColumns), p_.columns - first_column));
    rows = static_cast<int>(min(static_cast<int64_t>(p_.tile_rows), p_.rows - first_row));
    begin_ = SUMS_PIXELS ? blockIdx.y * p_.span : 0;
    end_ = SUMS_PIXELS ? min(begin_ + p_.span, p_.depth) : p_.depth;
    large_ = p_.large.data + (SUMS_PIXELS ? first_column * p_.large.channel : 0);
    small_ = p_.small + first_row * p_.small_row;
    place_column(dropout, threadIdx.x);
  }

  // Calls use(large tile, small tile, depth) for one tile after another, while two more are on their way.
  template <class Use>
  __device__ __forceinline__ void for_each(Use use) {
    const int stage_size = kLarge + p_.tile_rows * kPitch;
    const int count = static_cast<int>(ceil_div<int64_t>(end_ - begin_, kDepth));
    const int last_depth = opaque(static_cast<int>(end_ - begin_ - static_cast<int64_t>(count - 1) * kDepth));
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage) place_depth(stage, stage);
    __syncthreads();
    int stage = 1, next = 0;  // of this tile, and of the one kStages - 1 tiles on
#pragma unroll 1
    for (int tile = 1 - kStages; tile < count; ++tile) {
      if (tile >= 0) {
        await_copies<kStages - 2>();
        __syncthreads();  // this tile is there, and nobody reads the one before it any more
      }
      const int left = count - tile - kStages;  // after the tile whose copies start
      if (left >= 0) start(staged_ + next * stage_size, next, left > 0 ? kDepth : last_depth);
      commit_copies();
      if (tile >= 0) {
        place_depth(stage, tile + kStages);
        const T* large = staged_ + stage * stage_size;
        use(large, large + kLarge, tile + 1 < count ? kDepth : last_depth);
      }
      next = stage, stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    await_copies<0>();
    __syncthreads();  // the tiles' memory may now hold the result
  }

  __device__ float* result_tile() const { return reinterpret_cast<float*>(staged_); }
  __device__ const Places& places() const { return places_; }

  int64_t first_row, first_column;
  int rows, columns;

 private:
  __device__ void place_column(const Dropout& dropout, int i) {
    static_assert(kProductThreads == kColumns);
    const int64_t number = min(first_column + i, p_.columns - 1);
    if constexpr (SUMS_PIXELS) {
      places_.result[i] = number;
    } else {
      const Pixel pixel = pixel_of(p_.pixels, number);
      places_.large[i] = offset_of(pixel, p_.large.pixel), places_.result[i] = offset_of(pixel, p_.result.pixel);
      places_.element[i] = element_of(dropout, pixel);
    }
  }

  __device__ __forceinline__ void place_depth(int stage, int tile) {
    if constexpr (SUMS_PIXELS) {
      const int64_t from = begin_ + static_cast<int64_t>(tile) * kDepth;
      if (threadIdx.x >= kDepth || from >= end_) return;
      const Pixel pixel = pixel_of(p_.pixels, min(from + threadIdx.x, end_ - 1));
      places_.large_depth[stage][threadIdx.x] = offset_of(pixel, p_.large.pixel);
      places_.small_depth[stage][threadIdx.x] = offset_of(pixel, p_.small_pixel);
    }
  }

  __device__ __forceinline__ void start(T* to, int stage, int depth) {
    by_runs(p_.large.run_log, [&](auto bytes) { start_large<decltype(bytes)::value>(to, stage, depth); });
    if (p_.small_rows_fast) start_small_rows(to + kLarge, stage, depth);
    else by_runs(p_.small_run_log, [&](auto bytes) { start_small<decltype(bytes)::value>(to + kLarge, stage, depth); });
    if constexpr (!SUMS_PIXELS) large_ += kDepth * p_.large.channel, small_ += kDepth * p_.small_depth;
  }

  // Calls start(bytes of a copy), which is a constant: a whole run, or 4 bytes or one element of it.
  template <class Start>
  static __device__ __forceinline__ void by_runs(int run_log, Start start) {
    const int bytes = static_cast<int>(sizeof(T)) << run_log;
    if (bytes == 16) start(std::integral_constant<int, 16>{});
    else if (sizeof(T) == 4 || bytes > 2) start(std::integral_constant<int, 4>{});
    else start(std::integral_constant<int, sizeof(T)>{});
  }

  // A thread keeps its place along the axis that lies together in memory, so that little is left to compute for a copy.
  template <int BYTES>
  __device__ __forceinline__ void start_large(T* to, int stage, int depth) const {
    constexpr int kRun = BYTES / sizeof(T), kLanes = kLine / kRun, kStep = kProductThreads / kLanes;
    const int fast = threadIdx.x % kLanes * kRun, first = threadIdx.x / kLanes;
    const int64_t* pixels = SUMS_PIXELS ? places_.large_depth[stage] : places_.large;
    const T* at = large_ + (kPixelsFast ? pixels[fast] + first * p_.large.channel : fast * p_.large.channel);
    const bool fast_inside = fast < (COLUMNS_FAST ? columns : depth);
    const int lines = (COLUMNS_FAST ? depth : columns) - first;
    to += first * kLargePitch + fast;
#pragma unroll 8
    for (int line = 0; line < kLines; line += kStep) {
      copy<BYTES>(to + line * kLargePitch, kPixelsFast ? at : at + pixels[first + line], fast_inside && line < lines);
      if constexpr (kPixelsFast) at += kStep * p_.large.channel;
    }
  }

  template <int BYTES>
  __device__ __forceinline__ void start_small(T* to, int stage, int depth) const {
    constexpr int kRun = BYTES / sizeof(T), kLanes = kDepth / kRun, kStep = kProductThreads / kLanes;
    const int k = threadIdx.x % kLanes * kRun, first = threadIdx.x / kLanes;
    const T* at = small_ + small_depth(stage, k) + first * p_.small_row;
    to += first * kPitch + k;
#pragma unroll 1
    for (int row = first; row < rows; row += kStep, to += kStep * kPitch, at += kStep * p_.small_row)
      copy<BYTES>(to, at, k < depth);
  }

  __device__ __forceinline__ void start_small_rows(T* to, int stage, int depth) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll 1
    for (int k = threadIdx.x / kWarp; k < kDepth; k += kProductWarps)
#pragma unroll 1
      for (int row = lane; row < rows; row += kWarp)
        copy<sizeof(T)>(to + row * kPitch + k, small_ + row * p_.small_row + small_depth(stage, k), k < depth);
  }

  __device__ __forceinline__ int64_t small_depth(int stage, int k) const {
    return SUMS_PIXELS ? places_.small_depth[stage][k] : k * p_.small_depth;
  }

  template <int BYTES>
  static __device__ __forceinline__ void copy(T* to, const T* from, bool inside) {
    if constexpr (BYTES >= 4) copy_async<BYTES>(to, from, inside);
    else *to = inside ? __ldg(from) : from_float<T>(0);
  }

  const Product<T, Result>& p_;
  Places& places_;
  T* staged_;
  const T *large_, *small_;  // of the tile whose copies start next
  int64_t begin_, end_;
};

// Writes a block's result from shared memory, where it lies as rows x kColumns, through the epilogue.
template <class T, class Result, bool COLUMNS_FAST, bool SUMS_PIXELS>
__device__ __forceinline__ void write_result(const Tiles<T, Result, COLUMNS_FAST, SUMS_PIXELS>& tiles,
                                             const Product<T, Result>& p, const Epilogue<T>& epilogue) {
  const bool rows_fast = !SUMS_PIXELS && p.result.channels_fast;
  Image<Result> result = p.result;
  if constexpr (SUMS_PIXELS) result.data += blockIdx.y * p.range_stride;
  for_each_group(tiles.rows, tiles.columns, rows_fast, [&](int row, int group) {
    const int64_t channel = tiles.first_row + row;
    const int column = 4 * group;
    const float4 four = *reinterpret_cast<const float4*>(tiles.result_tile() + row * tiles.kResultPitch + column);
    float values[4] = {four.x, four.y, four.z, four.w};
    if constexpr (!SUMS_PIXELS) finish(epilogue, channel, tiles.places().element + column, values);
    store_group(result, channel, tiles.places().result + column, tiles.columns - column, values);
  });
}

// Gradient of bias: thread r adds row r of the small factor, whose tile is 0 where there is nothing; each tile's sum is
// formed in four parts, which keeps the error of a long sum small.
template <class T, int DEPTH, int PITCH>
__device__ __forceinline__ void add_row(const T* small, int rows, float& sum) {
  if (threadIdx.x >= rows) return;
  float parts[4] = {};
#pragma unroll
  for (int k = 0; k < DEPTH; ++k) parts[k % 4] += to_float(small[threadIdx.x * PITCH + k]);
  sum += (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

}  // namespace fcnkern::cuda
