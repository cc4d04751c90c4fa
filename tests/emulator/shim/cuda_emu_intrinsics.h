// Loads with a cache hint, and those functions of numbers and bits that CUDA's headers lack in host mode.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda_emu_atomics.h"

namespace cuemu {

template <class T>
void check_aligned(const T* address, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T))
    fail("misaligned %zu-byte %s at %p", sizeof(T), what, static_cast<const void*>(address));
}
template <class T>
T load(const T* address) {
  check_aligned(address, "load");
  return *address;
}
template <class T>
void store(T* address, T value) {
  check_aligned(address, "store");
  *address = value;
}

}  // namespace cuemu

template <class T>
T __ldg(const T* address) {
  return cuemu::load(address);
}
template <class T>
T __ldcs(const T* address) {
  return cuemu::load(address);
}
template <class T>
T __ldcg(const T* address) {
  return cuemu::load(address);
}
template <class T>
void __stcs(T* address, T value) {
  cuemu::store(address, value);
}
template <class T>
void __stcg(T* address, T value) {
  cuemu::store(address, value);
}

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __exp2f(float x) { return exp2f(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }  // NaN: 0
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline float __int2float_rn(int x) { return float(x); }

inline int __float_as_int(float x) { return cuemu::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return cuemu::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return cuemu::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return cuemu::bit_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }

// As CUDA's: of a number and NaN they give the number.
template <class A, class B, class C = std::common_type_t<A, B>>
C max(A a, B b) {
  if constexpr (std::is_floating_point_v<C>) return std::fmax(C(a), C(b));
  else return C(a) < C(b) ? C(b) : C(a);
}
template <class A, class B, class C = std::common_type_t<A, B>>
C min(A a, B b) {
  if constexpr (std::is_floating_point_v<C>) return std::fmin(C(a), C(b));
  else return C(b) < C(a) ? C(b) : C(a);
}

inline __half __hfma(__half a, __half b, __half c) {
  return __float2half(fmaf(__half2float(a), __half2float(b), __half2float(c)));
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __float2bfloat16(fmaf(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}

inline void __trap() { cuemu::fail("__trap()"); }

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned which = selector >> 4 * i & 0xf;
    if (which & 8) cuemu::fail("__byte_perm: the replication of signs is not emulated");
    result |= unsigned(bytes >> 8 * which & 0xff) << 8 * i;
  }
  return result;
}

inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 32; i += 8) sum += (a >> i & 0xff) * (b >> i & 0xff);
  return sum;
}

inline unsigned __reduce_or_sync(unsigned mask, unsigned value, CUEMU_AT) {
  return cuemu_reduce(mask, value, [](unsigned a, unsigned b) { return a | b; }, file, line);
}

template <class T> void __stwb(T* p, T v) {
  if (reinterpret_cast<uintptr_t>(p) % alignof(T)) cuemu::fail("misaligned %zu-byte store to %p", sizeof(T), (void*)p);
  *p = v;
}
