// Element types: kernels are written for one storage type and compute in float.
#pragma once

#include <stdexcept>

#include "dtypes.h"
#include "kernel.cuh"

namespace fcnkern::cuda {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ T from_float(float value) {
  if constexpr (sizeof(T) == 4) return value;
  else if constexpr (std::is_same_v<T, __half>) return __float2half_rn(value);
  else return __float2bfloat16_rn(value);
}

// Calls `run` with a value of the storage type; fp64 has no kernels here.
template <class Run>
void with_element_type(DType type, Run&& run) {
  switch (type) {
    case DType::kF32: return run(float{});
    case DType::kF16: return run(__half{});
    case DType::kBF16: return run(__nv_bfloat16{});
    default: throw std::invalid_argument("fcnkern: the CUDA kernels take fp32, fp16 and bf16");
  }
}

}  // namespace fcnkern::cuda
