// Executes CUDA C++ device code on the CPU, for tests: g++ -x c++ -std=c++17 -include cuda_emu.h kernels.cu
//
// Blocks run one after another on the calling OS thread. Every CUDA thread of a block is a fiber, which runs
// until it reaches a barrier, a warp collective or its end. Which of the runnable threads goes next is a
// parameter (CUEMU_ORDER=forward|reverse|random, CUEMU_SEED=n), so that an absent barrier changes results.
// With -fsanitize=address each shared array has its own red zone. With -fsanitize=thread each CUDA thread is
// a thread to the sanitizer, and ordered is only what CUDA orders: barriers, __syncwarp, start and end of a
// kernel, a fence before an atomic. That makes it a detector of data races, in shared and global memory,
// within and between blocks.
//
// Not modelled: time, reordering by a weak memory model, exact bits of approximate intrinsics, clusters, TMA,
// textures, grid-wide barriers, blocks that wait for each other.
#pragma once
#ifdef __CUDACC__
#error "cuda_emu.h is for host compilers; nvcc must not see it"
#endif
#define FCNKERN_EMULATED 1

// The real headers in host mode: dim3, float4, cudaError_t, conversions of __half and __nv_bfloat16.
// __global__ and __device__ are empty there.
#include <cuda_runtime.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#undef __shared__
#define __shared__ static  // FCNKERN_SHARED of kernel.cuh is checked better: memory of its own for each block
#undef __launch_bounds__
#define __launch_bounds__(...)

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#include "cuda_emu_sanitizers.h"

#include "cuda_emu_fiber.h"

#include "cuda_emu_machine.h"

#include "cuda_emu_scheduler.h"

#include "cuda_emu_launch.h"

#include "cuda_emu_collectives.h"

#include "cuda_emu_atomics.h"

#include "cuda_emu_intrinsics.h"

#include "cuda_emu_runtime.h"

#include "cuda_emu_async.h"
