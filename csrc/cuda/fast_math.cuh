// Approximate functions of the special-function unit, each with a twin for the host.
#pragma once

#include "kernel.cuh"

namespace fcnkern::cuda {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.69314718055994531f;

#ifdef FCNKERN_EMULATED

__device__ inline float exp2_fast(float x) { return exp2f(x); }
__device__ inline float log2_fast(float x) { return log2f(x); }
__device__ inline float reciprocal_fast(float x) { return 1.0f / x; }

#else

// 2^x to 2 units in the last place; results below 2^-126 are 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// log2(x) with an absolute error of 2^-22 near 1.
__device__ __forceinline__ float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x to 1 unit in the last place.
__device__ __forceinline__ float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

}  // namespace fcnkern::cuda
