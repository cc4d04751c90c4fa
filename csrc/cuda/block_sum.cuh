// Sums over the threads of a block.
#pragma once

#include "kernel.cuh"

namespace fcnkern::cuda {

// The sum of a value over THREADS threads, all of the block's, in a fixed order; the same in all of them.
template <int THREADS, class T>
__device__ __forceinline__ T block_sum(T value) {
  FCNKERN_SHARED(T, parts, [THREADS / kWarp]);
  for (int other = kWarp / 2; other > 0; other /= 2) value += __shfl_xor_sync(kAllLanes, value, other);
  __syncthreads();  // the sum before may still be read
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = parts[0];
  for (int k = 1; k < THREADS / kWarp; ++k) value += parts[k];
  return value;
}

}  // namespace fcnkern::cuda
