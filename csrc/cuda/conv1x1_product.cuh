// The two kernels of the skinny product: fp32 by exact multiply-adds, 16-bit types on the tensor cores.
#pragma once

#include "conv1x1_tile.cuh"

namespace fcnkern::cuda {

constexpr int kLeastRows = 4, kMostRows = 8, kMostWarps = kMaxRows / kMostRows;

// Reads the large factor once for each 64 rows and the small one once for each 128 columns; writes the result once. A
// thread has warp_rows rows, 4 to 8, of four columns in registers. Bound by instructions: for 19 rows 46 of a thread for
// an element of the large factor, 1.6 times the time of its way from DRAM; 29 of them are the loop over the depth. No
// exponentials.
template <bool COLUMNS_FAST, bool SUMS_PIXELS>
__global__ void __launch_bounds__(kWarp* kMostWarps, 2)
    conv1x1_fma_kernel(Product<float, float> p, Epilogue<float> epilogue, int warp_rows) {
  using Staged = Tiles<float, float, COLUMNS_FAST, SUMS_PIXELS>;
  FCNKERN_DYNAMIC_SHARED(unsigned char, memory);
  const int lane = threadIdx.x % kWarp, row = threadIdx.x / kWarp * warp_rows;
  Staged tiles(p, epilogue.dropout, blockDim.x / kWarp * warp_rows, memory);
  const bool sums_rows = SUMS_PIXELS && p.row_sums != nullptr && tiles.first_column == 0;
  float sums[kMostRows][4] = {}, row_sum = 0;
  tiles.for_each([&](const float* large, const float* small, int depth) {
    if (sums_rows) add_row<float, Staged::kDepth, Staged::kPitch>(small, tiles.rows, row_sum);
#pragma unroll 1
    for (int k = 0; k < depth; k += 4) {
      float4 x[4];  // of column i, or of depth k + i
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = COLUMNS_FAST ? (k + i) * Staged::kLargePitch + 4 * lane
                                    : (lane + i * kWarp) * Staged::kLargePitch + k;
        x[i] = *reinterpret_cast<const float4*>(large + at);
      }
#pragma unroll
      for (int r = 0; r < kMostRows; ++r) {
        if (r >= kLeastRows && r >= warp_rows) break;
        const float4 w = *reinterpret_cast<const float4*>(small + (row + r) * Staged::kPitch + k);
        if constexpr (COLUMNS_FAST) {
          const float weights[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sums[r][0] = fmaf(weights[i], x[i].x, sums[r][0]), sums[r][1] = fmaf(weights[i], x[i].y, sums[r][1]);
            sums[r][2] = fmaf(weights[i], x[i].z, sums[r][2]), sums[r][3] = fmaf(weights[i], x[i].w, sums[r][3]);
          }
        } else {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sums[r][i] = fmaf(w.x, x[i].x, sums[r][i]), sums[r][i] = fmaf(w.y, x[i].y, sums[r][i]);
            sums[r][i] = fmaf(w.z, x[i].z, sums[r][i]), sums[r][i] = fmaf(w.w, x[i].w, sums[r][i]);
          }
        }
      }
    }
  });
#pragma unroll
  for (int r = 0; r < kMostRows; ++r) {
    if (r >= warp_rows) break;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = COLUMNS_FAST ? 4 * lane + i : lane + i * kWarp;
      tiles.result_tile()[(row + r) * Staged::kResultPitch + column] = sums[r][i];
    }
  }
  if (sums_rows && threadIdx.x < tiles.rows) p.row_sums[blockIdx.y * p.range_stride + threadIdx.x] = row_sum;
  write_result(tiles, p, epilogue);
}

constexpr int kMmaWarps = kColumns / 32, kEights = kMaxRows / 8;

// Reads and writes as the kernel above. A warp has 32 columns of all rows, of which there are a multiple of 8; an element
// takes 12 instructions for 19 rows, 0.8 times the time of its way from DRAM, which bounds the kernel; a fraction of one
// is the tensor cores'. Sums are fp32. No exponentials.
template <class T, class Result, bool COLUMNS_FAST, bool SUMS_PIXELS>
__global__ void __launch_bounds__(kWarp* kMmaWarps)
    conv1x1_mma_kernel(Product<T, Result> p, Epilogue<T> epilogue, int tile_rows) {
  using Staged = Tiles<T, Result, COLUMNS_FAST, SUMS_PIXELS>;
  static_assert(Staged::kDepth == 32);
  FCNKERN_DYNAMIC_SHARED(unsigned char, memory);
  const int lane = threadIdx.x % kWarp, first = threadIdx.x / kWarp * 32;
  const int matrix = lane / 8, line = lane % 8;
  Staged tiles(p, epilogue.dropout, tile_rows, memory);
  const bool sums_rows = SUMS_PIXELS && p.row_sums != nullptr && tiles.first_column == 0;
  float sums[2][kEights][4] = {}, row_sum = 0;
  tiles.for_each([&](const T* large, const T* small, int) {
    if (sums_rows) add_row<T, Staged::kDepth, Staged::kPitch>(small, tiles.rows, row_sum);
    uint32_t a[2][2][4];  // of 16 columns, of 16 of the depth
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int column = first + m * 16 + matrix % 2 * 8, depth = k * 16 + matrix / 2 * 8;
        const int at = COLUMNS_FAST ? (depth + line) * Staged::kLargePitch + column
                                    : (column + line) * Staged::kLargePitch + depth;
        load_matrices<COLUMNS_FAST>(a[m][k], large + at);
      }
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      if (e * 8 >= tile_rows) break;
      uint32_t b[4];
      load_matrices<false>(b, small + (e * 8 + line) * Staged::kPitch + matrix * 8);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        multiply_add<T>(sums[m][e], a[m][0], {b[0], b[1]});
        multiply_add<T>(sums[m][e], a[m][1], {b[2], b[3]});
      }
    }
  });
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    if (e * 8 >= tile_rows) break;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = e * 8 + lane % 4 * 2 + i % 2, column = first + m * 16 + lane / 4 + i / 2 * 8;
        tiles.result_tile()[row * Staged::kResultPitch + column] = sums[m][e][i];
      }
  }
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
