// Instructions that C++ has no name for, each with a twin for the host.
#pragma once

#include "kernel.cuh"

namespace fcnkern::cuda {

// Starts a copy of 4, 8 or 16 bytes, aligned to as many, from global to shared memory; where it is not `inside`, clears
// the target and reads nothing.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, bool inside) {
#ifdef FCNKERN_EMULATED
  if (inside) return cuemu::async_copy<BYTES>(to, from);
  for (int i = 0; i < BYTES / 4; ++i) static_cast<uint32_t*>(to)[i] = 0;
#else
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int read = inside ? BYTES : 0;
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(read) : "memory");
  else
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(BYTES), "r"(read)
                 : "memory");
#endif
}

// Makes one group of the copies that the thread has started since the last group.
__device__ __forceinline__ void commit_copies() {
#ifdef FCNKERN_EMULATED
  cuemu::async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until no more than LEFT of the thread's groups are under way.
template <int LEFT>
__device__ __forceinline__ void await_copies() {
#ifdef FCNKERN_EMULATED
  cuemu::async_wait<LEFT>();
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements from shared memory; lane l names row l % 8 of matrix l / 8, 16 bytes. Lane l then
// has elements 2 (l % 4) and the next one of row l / 4 of each matrix or, TRANSPOSED, of column l / 4.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
#ifdef FCNKERN_EMULATED
  cuemu::load_matrices(to, row, TRANSPOSED);
#else
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(shared) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(shared) : "memory");
#endif
}

// sum += a b on the tensor cores, 16x16 by 16x8 elements of T, with the registers of mma.m16n8k16.
template <class T>
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef FCNKERN_EMULATED
  cuemu::product16<T>(sum, a, b);
#else
#define FCNKERN_MMA(TYPE)                                                                                        \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                                                     \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                     \
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                                   \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (std::is_same_v<T, __half>) FCNKERN_MMA("f16");
  else FCNKERN_MMA("bf16");
#undef FCNKERN_MMA
#endif
}

// The larger number; NaN where there is one.
__device__ __forceinline__ float max_or_nan(float a, float b) {
#ifdef FCNKERN_EMULATED
  return a > b || a != a ? a : b;
#else
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#endif
}

// The same number, of which the compiler knows nothing: so it does not make two copies of the code around a
// branch, and does not form a number anew where it should have been kept.
__device__ __forceinline__ int opaque(int value) {
#ifndef FCNKERN_EMULATED
  asm volatile("" : "+r"(value));
#endif
  return value;
}

__device__ __forceinline__ int64_t opaque(int64_t value) {
#ifndef FCNKERN_EMULATED
  asm volatile("" : "+l"(value));
#endif
  return value;
}

__device__ __forceinline__ float opaque(float value) {
#ifndef FCNKERN_EMULATED
  asm volatile("" : "+f"(value));
#endif
  return value;
}

// The same address in global memory.
template <class T>
__device__ __forceinline__ T* opaque_global(T* value) {
#ifdef FCNKERN_EMULATED
  return value;
#else
  size_t address = __cvta_generic_to_global(value);
  asm volatile("" : "+l"(address));
  return static_cast<T*>(__cvta_global_to_generic(address));
#endif
}

}  // namespace fcnkern::cuda
