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
  Image<Result> result;
  int64_t span, range_stride;  // gradient of weight: pixels that a block sums; elements between two such sums
  float* row_sums;             // gradient of weight: sums of small over the depth, or null
};

constexpr int kStages = 3;
constexpr int kMaxRows = 64;

__host__ __device__ constexpr int log2_of(int value) { return value <= 1 ? 0 : 1 + log2_of(value / 2); }

// Copies of the tiles of both factors. COLUMNS_FAST: the large tile lies as depth x columns, as it does in memory, else
// as columns x depth. Rows are padded so that the loads of a warp find all banks.
template <class T, class Result, bool COLUMNS_FAST, bool SUMS_PIXELS>
class Tiles {
 public:
  static constexpr int kDepth = 64 / sizeof(T), kPad = 16 / sizeof(T), kPitch = kDepth + kPad;
  static constexpr int kLargePitch = COLUMNS_FAST ? kColumns + kPad : kPitch;
  static constexpr int kLarge = COLUMNS_FAST ? kDepth * kLargePitch : kColumns * kLargePitch;
  static constexpr int kResultPitch = kColumns + 4;

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

  // A block takes rows [first_row, first_row + rows) of `tile_rows` and columns [first_column, first_column + columns).
  __device__ Tiles(const Product<T, Result>& product, const Dropout& dropout, int tile_rows, unsigned char* memory)
      : p_(product), places_(*reinterpret_cast<Places*>(memory)), tile_rows_(tile_rows) {
    staged_ = reinterpret_cast<T*>(memory + sizeof(Places));
    const int64_t row_tiles = ceil_div<int64_t>(p_.rows, tile_rows);
    first_column = blockIdx.x / row_tiles * kColumns;
    first_row = (blockIdx.x - first_column / kColumns * row_tiles) * tile_rows;
    columns = static_cast<int>(min(static_cast<int64_t>(kColumns), p_.columns - first_column));
    rows = static_cast<int>(min(static_cast<int64_t>(tile_rows), p_.rows - first_row));
    begin_ = SUMS_PIXELS ? blockIdx.y * p_.span : 0;
    end_ = SUMS_PIXELS ? min(begin_ + p_.span, p_.depth) : p_.depth;
    small_ = p_.small + first_row * p_.small_row;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) place_column(dropout, i);
  }

  // Calls use(large tile, small tile, depth) for one tile after another, while two more are on their way.
  template <class Use>
  __device__ __forceinline__ void for_each(Use use) {
    const int64_t count = ceil_div<int64_t>(end_ - begin_, kDepth);
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage) place_depth(stage);
    __syncthreads();
#pragma unroll 1
    for (int64_t tile = 1 - kStages; tile < count; ++tile) {
      if (tile >= 0) {
        await_copies<kStages - 2>();
        __syncthreads();  // this tile is there, and nobody reads the one before it any more
      }
      if (tile + kStages - 1 < count) start(tile + kStages - 1);
      commit_copies();
      if (tile < 0) continue;
      place_depth(tile + kStages);
      const T* large = stage_of(tile);
      use(large, large + kLarge, static_cast<int>(min(static_cast<int64_t>(kDepth), end_ - begin_ - tile * kDepth)));
    }
    await_copies<0>();
    __syncthreads();  // the tiles' memory may now hold the result
  }

  __device__ float* result_tile() const { return reinterpret_cast<float*>(staged_); }
  __device__ const Places& places() const { return places_; }

  int64_t first_row, first_column;
  int rows, columns;

 private:
  __device__ T* stage_of(int64_t tile) const {
    return staged_ + static_cast<int>(tile % kStages) * (kLarge + tile_rows_ * kPitch);
  }

  __device__ void place_column(const Dropout& dropout, int i) {
    if constexpr (SUMS_PIXELS) {
      places_.large[i] = (first_column + i) * p_.large.channel, places_.result[i] = first_column + i;
    } else {
      const Pixel pixel = pixel_of(p_.pixels, first_column + i);
      places_.large[i] = offset_of(pixel, p_.large.pixel), places_.result[i] = offset_of(pixel, p_.result.pixel);
      places_.element[i] = element_of(dropout, pixel);
    }
  }

  __device__ __forceinline__ void place_depth(int64_t tile) {
    if constexpr (SUMS_PIXELS) {
      const int64_t number = begin_ + tile * kDepth + threadIdx.x;
      if (threadIdx.x >= kDepth || number >= end_) return;
      const Pixel pixel = pixel_of(p_.pixels, number);
      places_.large_depth[tile % kStages][threadIdx.x] = offset_of(pixel, p_.large.pixel);
      places_.small_depth[tile % kStages][threadIdx.x] = offset_of(pixel, p_.small_pixel);
    }
  }

  __device__ __forceinline__ void start(int64_t tile) {
    const int64_t from = begin_ + tile * kDepth;
    const int depth = static_cast<int>(min(static_cast<int64_t>(kDepth), end_ - from));
    if (p_.large.run_log == log2_of(kWidestRun<T>)) start_large_by_runs(stage_of(tile), tile, from, depth);
    else start_large(stage_of(tile), tile, from, depth);
    start_small(stage_of(tile) + kLarge, tile, from, depth);
  }

  __device__ __forceinline__ int64_t depth_offset(int64_t tile, int64_t from, int k) const {
    if constexpr (SUMS_PIXELS) return places_.large_depth[tile % kStages][k];
    else return (from + k) * p_.large.channel;
  }

  // By copies of 16 bytes: a thread keeps its place along the fast axis, so that little is left to compute for a copy.
  __device__ __forceinline__ void start_large_by_runs(T* to, int64_t tile, int64_t from, int depth) const {
    constexpr int kRun = kWidestRun<T>, kLanes = (COLUMNS_FAST ? kColumns : kDepth) / kRun, kLines = kWarp / kLanes;
    constexpr int kSlow = COLUMNS_FAST ? kDepth : kColumns;
    const int lane = threadIdx.x % kWarp, fast = lane % kLanes * kRun;
    const int fast_end = COLUMNS_FAST ? columns : depth, slow_end = COLUMNS_FAST ? depth : columns;
    const int wanted = fast < fast_end ? slow_end : 0, step = blockDim.x / kWarp * kLines;
    const T* base = p_.large.data;
    if (wanted > 0) base += COLUMNS_FAST ? places_.large[fast] : depth_offset(tile, from, fast);
#pragma unroll 2
    for (int slow = threadIdx.x / kWarp * kLines + lane / kLanes; slow < kSlow; slow += step) {
      T* at = to + slow * kLargePitch + fast;
      if (slow < wanted) copy_async<16>(at, base + (COLUMNS_FAST ? depth_offset(tile, from, slow) : places_.large[slow]));
      else *reinterpret_cast<uint4*>(at) = uint4{};
    }
  }

  __device__ __forceinline__ void start_large(T* to, int64_t tile, int64_t from, int depth) const {
    constexpr int kFast = COLUMNS_FAST ? kColumns : kDepth;
    const int run_log = p_.large.run_log, per_line_log = log2_of(kFast) - run_log;
#pragma unroll 1
    for (int i = threadIdx.x; i < kColumns * kDepth >> run_log; i += blockDim.x) {
      const int fast = (i & ((1 << per_line_log) - 1)) << run_log, slow = i >> per_line_log;
      const int column = COLUMNS_FAST ? fast : slow, k = COLUMNS_FAST ? slow : fast;
      const bool inside = column < columns && k < depth;
      const int64_t at = inside ? places_.large[column] + depth_offset(tile, from, k) : 0;
      copy_run(to + slow * kLargePitch + fast, p_.large.data + at, run_log, inside);
    }
  }

  __device__ __forceinline__ void start_small(T* to, int64_t tile, int64_t from, int depth) const {
    const auto copy = [&](int row, int k, int run_log) {
      const bool inside = k < depth;
      int64_t at = row * p_.small_row;
      if constexpr (SUMS_PIXELS) at += inside ? places_.small_depth[tile % kStages][k] : 0;
      else at += (from + k) * p_.small_depth;
      copy_run(to + row * kPitch + k, small_ + at, run_log, inside);
    };
    const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    if (p_.small_rows_fast) {
#pragma unroll 1
      for (int k = warp; k < kDepth; k += warps)
#pragma unroll 1
        for (int row = lane; row < rows; row += kWarp) copy(row, k, 0);
    } else {
      const int run_log = p_.small_run_log, per_row_log = log2_of(kDepth) - run_log;
#pragma unroll 1
      for (int i = threadIdx.x; i < rows << per_row_log; i += blockDim.x)
        copy(i >> per_row_log, (i & ((1 << per_row_log) - 1)) << run_log, run_log);
    }
  }

  // Starts a copy of 2^run_log elements, or clears them where they are outside: there, 0 * 0 adds nothing.
  static __device__ __forceinline__ void copy_run(T* to, const T* from, int run_log, bool inside) {
    if (!inside) {
#pragma unroll 1
      for (int i = 0; i < 1 << run_log; ++i) to[i] = from_float<T>(0);
      return;
    }
    const int bytes = static_cast<int>(sizeof(T)) << run_log;
    if (bytes == 16) copy_async<16>(to, from);
    else if (bytes == 8) copy_async<8>(to, from);
    else if (bytes == 4) copy_async<4>(to, from);
    else *to = __ldg(from);
  }

  const Product<T, Result>& p_;
  Places& places_;
  const int tile_rows_;
  T* staged_;
  const T* small_;
  int64_t begin_, end_;
};

// Writes a block's result from shared memory, where it lies as rows x kColumns, through the epilogue.
template <class T, class Result, bool COLUMNS_FAST, bool SUMS_PIXELS>
__device__ __forceinline__ void write_result(const Tiles<T, Result, COLUMNS_FAST, SUMS_PIXELS>& tiles,
                                             const Product<T, Result>& p, const Epilogue<T>& epilogue) {
  __syncthreads();
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
