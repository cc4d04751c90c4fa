// The two kernels of the skinny product: fp32 by exact multiply-adds, 16-bit types on the tensor cores.
#pragma once

#include "conv1x1_tile.cuh"

namespace fcnkern::cuda {

constexpr int kThreadColumns = 8;              // of a thread; 16 lanes have all columns
constexpr int kLeastRows = 8, kMostRows = 12;  // of a thread

// How the warps of a block share its tile: 2^groups_log of them have other rows, and those with the same rows take four
// of the depth in turn.
struct FmaShares {
  int groups_log, rows;  // rows: of a thread

  explicit FmaShares(int64_t block_rows) {
    groups_log = block_rows <= 2 * kMostRows ? 0 : block_rows <= 4 * kMostRows ? 1 : 2;
    rows = max(kLeastRows, static_cast<int>(ceil_div<int64_t>(block_rows, 2 << groups_log)));
  }
  int block_rows() const { return rows << groups_log << 1; }
};

__device__ __forceinline__ void load_four(float (&to)[4], const float* from) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

// Reads the large factor once for each 64 rows and the small one once for each 128 columns; writes the result once. A
// thread has 8 to 12 rows of 8 columns in registers. For 19 rows an element of the large factor takes 20 multiply-adds
// and 10 other instructions of a thread, as long as its way from DRAM; with more rows the multiply-adds bound it. No
// exponentials.
template <bool COLUMNS_FAST, bool SUMS_PIXELS>
__global__ void __launch_bounds__(kProductThreads, 3)
    conv1x1_fma_kernel(Product<float, float> p, Epilogue<float> epilogue, FmaShares shares) {
  using Staged = Tiles<float, float, COLUMNS_FAST, SUMS_PIXELS>;
  FCNKERN_DYNAMIC_SHARED(unsigned char, memory);
  const int lane = threadIdx.x % 16, half_warp = threadIdx.x / 16;
  const int parts = kProductWarps >> shares.groups_log, part = half_warp >> shares.groups_log >> 1;
  const int first_row = (half_warp & ((2 << shares.groups_log) - 1)) * shares.rows;
  // Columns: two fours, or eight that are 16 apart.
  const int large_at = COLUMNS_FAST ? 4 * lane : lane * Staged::kLargePitch;
  Staged tiles(p, epilogue.dropout, memory);
  const bool sums_rows = SUMS_PIXELS && p.row_sums != nullptr && tiles.first_column == 0;
  float sums[kMostRows][kThreadColumns] = {}, row_sum = 0;
  tiles.for_each([&](const float* large, const float* small, int depth) {
    if (sums_rows) add_row<float, Staged::kDepth, Staged::kPitch>(small, tiles.rows, row_sum);
#pragma unroll 1
    for (int k = 4 * part; k < depth; k += 4 * parts) {
      float x[kThreadColumns][4];  // of depth k + i / 2, or of column i
#pragma unroll
      for (int i = 0; i < kThreadColumns; ++i)
        load_four(x[i], large + large_at + (COLUMNS_FAST ? (k + i / 2) * Staged::kLargePitch + i % 2 * 64
                                                         : 16 * i * Staged::kLargePitch + k));
#pragma unroll
      for (int r = 0; r < kMostRows; ++r) {
        if (r >= kLeastRows && r >= shares.rows) break;
        float weights[4];
        load_four(weights, small + (first_row + r) * Staged::kPitch + k);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int c = 0; c < kThreadColumns; ++c)
            sums[r][c] = fmaf(weights[i], COLUMNS_FAST ? x[2 * i + c / 4][c % 4] : x[c][i], sums[r][c]);
      }
    }
  });
  for (int adding = 0; adding < parts; ++adding) {
    if (part == adding) {
#pragma unroll
      for (int r = 0; r < kMostRows; ++r) {
        if (r >= kLeastRows && r >= shares.rows) break;
        float* row = tiles.result_tile() + (first_row + r) * Staged::kResultPitch;
#pragma unroll
        for (int c = 0; c < kThreadColumns; ++c) {
          float& sum = row[COLUMNS_FAST ? 4 * lane + c / 4 * 64 + c % 4 : lane + c * 16];
          sum = adding == 0 ? sums[r][c] : sum + sums[r][c];
        }
      }
    }
    __syncthreads();
  }
  if (sums_rows && threadIdx.x < tiles.rows) p.row_sums[blockIdx.y * p.range_stride + threadIdx.x] = row_sum;
  write_result(tiles, p, epilogue);
}

constexpr int kEights = kMaxRows / 8;

// Reads and writes as the kernel above. A warp has 32 columns of all rows, of which there are a multiple of 8; an element
// takes 5 instructions for 19 rows, a third of the time of its way from DRAM, which bounds the kernel; a fraction of one
// is the tensor cores'. Sums are fp32. No exponentials.
template <class T, class Result, bool COLUMNS_FAST, bool SUMS_PIXELS>
__global__ void __launch_bounds__(kProductThreads) conv1x1_mma_kernel(Product<T, Result> p, Epilogue<T> epilogue) {
  using Staged = Tiles<T, Result, COLUMNS_FAST, SUMS_PIXELS>;
  constexpr int kSteps = Staged::kDepth / 16;
  FCNKERN_DYNAMIC_SHARED(unsigned char, memory);
  const int lane = threadIdx.x % kWarp, first = threadIdx.x / kWarp * 32;
  const int matrix = lane / 8, line = lane % 8;
  const int column = first + matrix % 2 * 8, depth = matrix / 2 * 8;  // of this lane's row of four matrices
  const int large_at = COLUMNS_FAST ? (depth + line) * Staged::kLargePitch + column
                                    : (column + line) * Staged::kLargePitch + depth;
  const int small_at = line * Staged::kPitch + matrix * 8;
  Staged tiles(p, epilogue.dropout, memory);
  const bool sums_rows = SUMS_PIXELS && p.row_sums != nullptr && tiles.first_column == 0;
  float sums[2][kEights][4] = {}, row_sum = 0;
  tiles.for_each([&](const T* large, const T* small, int) {
    if (sums_rows) add_row<T, Staged::kDepth, Staged::kPitch>(small, tiles.rows, row_sum);
    uint32_t a[2][kSteps][4];  // of 16 columns, of 16 of the depth
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int k = 0; k < kSteps; ++k)
        load_matrices<COLUMNS_FAST>(
            a[m][k], large + large_at + 16 * (COLUMNS_FAST ? k * Staged::kLargePitch + m : m * Staged::kLargePitch + k));
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      if (e * 8 >= p.tile_rows) break;
#pragma unroll
      for (int k = 0; k < kSteps; k += 2) {
        uint32_t b[4];
        load_matrices<false>(b, small + small_at + e * 8 * Staged::kPitch + 16 * k);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply_add<T>(sums[m][e], a[m][k], {b[0], b[1]});
          multiply_add<T>(sums[m][e], a[m][k + 1], {b[2], b[3]});
        }
      }
    }
  });
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    if (e * 8 >= p.tile_rows) break;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = e * 8 + lane % 4 * 2 + i % 2, column = first + m * 16 + lane / 4 + i / 2 * 8;
        tiles.result_tile()[row * Staged::kResultPitch + column] = sums[m][e][i];
      }
  }
  __syncthreads();
  if (sums_rows && threadIdx.x < tiles.rows) p.row_sums[blockIdx.y * p.range_stride + threadIdx.x] = row_sum;
  write_result(tiles, p, epilogue);
}

constexpr int kSumLanes = 8;

// Adds `ranges` rows of partial sums in a fixed order, and scales and rounds them. Reads each sum once, mostly from L2,
// where they were just written. No exponentials.
template <class T>
__global__ void __launch_bounds__(kWarp* kSumLanes)
    conv1x1_sum_kernel(const float* sums, int64_t ranges, int64_t range_stride, int64_t count, T* result, float scale) {
  FCNKERN_SHARED(float, parts, [kSumLanes][kWarp]);
  const int lane = threadIdx.x % kWarp, part = threadIdx.x / kWarp;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  float sum = 0;
  if (column < count)
    for (int64_t range = part; range < ranges; range += kSumLanes) sum += sums[range * range_stride + column];
  parts[part][lane] = sum;
  __syncthreads();
  if (part != 0 || column >= count) return;
  for (int i = 1; i < kSumLanes; ++i) sum += parts[i][lane];
  result[column] = from_float<T>(sum * scale);
}

}  // namespace fcnkern::cuda
