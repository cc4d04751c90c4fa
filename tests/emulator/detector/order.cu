// Barriers, fences and atomics left out: the accesses of different threads are then in no order.
#include "case.h"

namespace {

constexpr int kThreads = 256;

__device__ float warp_sum(float value) {
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

// Each thread learns the sum over the block. `first`, `last`: whether there are barriers before and after the reads.
__device__ float block_sum(float value, float (&partial)[kThreads / 32], bool first, bool last) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  if (first) __syncthreads();
  float total = 0;
  for (int i = 0; i < kThreads / 32; ++i) total += partial[i];
  if (last) __syncthreads();
  return total;
}

__global__ void barrier_after_write_kernel(float* out, int fault) {
  FCNKERN_SHARED(float, partial, [kThreads / 32]);
  const float total = block_sum(1, partial, fault == 0, true);
  if (threadIdx.x == 0) out[0] = total;
}

bool barrier_after_write(int fault) {
  float out = 0;
  launch("barrier_after_write_kernel", barrier_after_write_kernel, {1, kThreads}, kStream, &out, fault);
  return out == kThreads;
}

__global__ void barrier_after_tile_kernel(const float* in, float* out, int fault) {
  FCNKERN_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x] = in[threadIdx.x];
  if (!fault) __syncthreads();
  out[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

bool barrier_after_tile(int fault) {
  const std::vector<float> in = counting(kThreads);
  std::vector<float> out(kThreads);
  const Grid grid{1, kThreads};
  launch("barrier_after_tile_kernel", barrier_after_tile_kernel, grid, kStream, in.data(), out.data(), fault);
  return std::vector<float>(out.rbegin(), out.rend()) == in;
}

// The second sum overwrites what slow threads have yet to read of the first.
__global__ void trailing_barrier_kernel(float* out, int fault) {
  FCNKERN_SHARED(float, partial, [kThreads / 32]);
  const float ones = block_sum(1, partial, true, fault == 0);
  const float twos = block_sum(2, partial, true, true);
  out[threadIdx.x] = ones + 1000 * twos;
}

bool trailing_barrier(int fault) {
  std::vector<float> out(kThreads);
  launch("trailing_barrier_kernel", trailing_barrier_kernel, {1, kThreads}, kStream, out.data(), fault);
  return out == std::vector<float>(kThreads, kThreads + 2000.f * kThreads);
}

__global__ void plain_update_kernel(unsigned* counts, int fault) {
  unsigned* mine = counts + threadIdx.x % 3;
  if (fault) *mine += 1;
  else atomicAdd(mine, 1u);
}

bool plain_update(int fault) {
  unsigned counts[3] = {};
  launch("plain_update_kernel", plain_update_kernel, {4, 96}, kStream, counts, fault);
  return counts[0] == 128 && counts[1] == 128 && counts[2] == 128;
}

__global__ void overlapping_blocks_kernel(float* out, int fault) {
  out[blockIdx.x * (blockDim.x - fault) + threadIdx.x] = float(blockIdx.x + threadIdx.x);
}

bool overlapping_blocks(int fault) {
  std::vector<float> out(128);
  launch("overlapping_blocks_kernel", overlapping_blocks_kernel, {4, 32}, kStream, out.data(), fault);
  return fault || out[127] == 34;
}

__global__ void warp_barrier_kernel(float* out, int fault) {
  FCNKERN_SHARED(float, tile, [32]);
  tile[threadIdx.x] = float(threadIdx.x);
  if (fault == 1) __shfl_sync(~0u, 1, 0);  // orders nothing
  if (fault == 0) __syncwarp();
  out[threadIdx.x ^ 1] = tile[threadIdx.x ^ 1];
}

bool warp_barrier(int fault) {
  std::vector<float> out(32);
  launch("warp_barrier_kernel", warp_barrier_kernel, {1, 32}, kStream, out.data(), fault);
  return out == counting(32);
}

bool shuffle_as_barrier(int fault) { return warp_barrier(fault ? 1 : 0); }
bool absent_warp_barrier(int fault) { return warp_barrier(fault ? 2 : 0); }

// The block that takes the last ticket adds up what all have left.
__global__ void last_block_kernel(float* parts, unsigned* tickets, float* out, int fault) {
  FCNKERN_SHARED(bool, is_last, );
  parts[blockIdx.x * 32 + threadIdx.x] = float(threadIdx.x);
  if (!fault) __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(tickets, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!is_last) return;
  float total = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) total += parts[block * 32 + threadIdx.x];
  out[threadIdx.x] = total;
}

bool last_block(int fault) {
  std::vector<float> parts(8 * 32), out(32);
  unsigned tickets = 0;
  launch("last_block_kernel", last_block_kernel, {8, 32}, kStream, parts.data(), &tickets, out.data(), fault);
  return out[1] == 8 && out[31] == 8 * 31;
}

// Two groups of copies. fault 1: the second is never waited for, 2: the first is waited for too weakly.
__global__ void async_copy_kernel(const float* in, float* out, int fault) {
  FCNKERN_SHARED(float, tile, [2][128]);
  for (int half = 0; half < 2; ++half) {
    cuemu::async_copy<16>(&tile[half][threadIdx.x * 4], in + half * 128 + threadIdx.x * 4);
    cuemu::async_commit();
  }
  if (fault == 2) cuemu::async_wait<2>();
  else cuemu::async_wait<1>();
  __syncthreads();
  out[threadIdx.x] = tile[0][127 - threadIdx.x];
  if (fault != 1) cuemu::async_wait<0>();
  __syncthreads();
  out[threadIdx.x + 32] = tile[1][127 - threadIdx.x];
}

bool async_copy(int fault) {
  alignas(16) float in[256];
  for (int i = 0; i < 256; ++i) in[i] = float(i);
  std::vector<float> out(64);
  launch("async_copy_kernel", async_copy_kernel, {1, 32}, kStream, in, out.data(), fault);
  bool right = true;
  for (int i = 0; i < 32; ++i) right &= out[i] == 127 - i && out[i + 32] == 255 - i;
  return right;
}

bool async_copy_weak_wait(int fault) { return async_copy(fault ? 2 : 0); }

}  // namespace

const std::vector<Case> kOrderCases = {
    {"barrier_after_write", barrier_after_write}, {"barrier_after_tile", barrier_after_tile},
    {"trailing_barrier", trailing_barrier},       {"plain_update", plain_update},
    {"overlapping_blocks", overlapping_blocks},   {"shuffle_as_barrier", shuffle_as_barrier},
    {"warp_barrier", absent_warp_barrier},        {"last_block", last_block},
    {"async_copy", async_copy},                   {"async_copy_weak_wait", async_copy_weak_wait},
};
