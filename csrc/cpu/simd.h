// Vectors of kLanes numbers, one per lane, through GCC/Clang vector extensions: one register of floats, as
// compilers compare and select element by element where a vector is wider than that.
//
// Everything lives in the namespace of the instruction-set level, so that no two levels ever share a
// function. For the same reason kernels instantiate no container or algorithm of the standard library.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define FCNKERN_INLINE static inline __attribute__((always_inline))

namespace fcnkern::FCNKERN_ISA {

#ifdef __AVX512F__
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

template <class T>
struct VecOf {
  typedef T Type __attribute__((vector_size(kLanes * sizeof(T))));
  typedef T Unaligned __attribute__((vector_size(kLanes * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::Type;
using VecF = Vec<float>;
using VecI = Vec<int32_t>;
using VecU64 = Vec<uint64_t>;

// Lane masks, as comparisons give them: all bits set where true.
template <class T>
using Mask = decltype(Vec<T>{} < Vec<T>{});
// A lane of it: an integer as wide as T.
template <class T>
using LaneInt = typename std::conditional<sizeof(T) == 8, int64_t, int32_t>::type;

template <class T>
FCNKERN_INLINE Vec<T> splat(T value) {
  return value - Vec<T>{};  // unlike value + 0, this keeps -0
}
template <class T>
FCNKERN_INLINE Vec<T> load(const T* source) {
  return *reinterpret_cast<const typename VecOf<T>::Unaligned*>(source);
}
template <class T>
FCNKERN_INLINE void store(T* target, Vec<T> value) {
  *reinterpret_cast<typename VecOf<T>::Unaligned*>(target) = value;
}

// A NaN in either operand gives `b` or NaN: check for NaN elsewhere.
template <class V>
FCNKERN_INLINE V vmax(V a, V b) {
  return a > b ? a : b;
}
template <class V>
FCNKERN_INLINE V vmin(V a, V b) {
  return a < b ? a : b;
}

template <int kBytes>
FCNKERN_INLINE bool any_bit(const void* words) {
  if constexpr (kBytes == 16) {
    uint64_t half[2];
    std::memcpy(half, words, 16);
    return (half[0] | half[1]) != 0;
  } else {
    typedef uint64_t Half __attribute__((vector_size(kBytes / 2)));
    Half half[2];
    std::memcpy(half, words, kBytes);
    half[0] |= half[1];
    return any_bit<kBytes / 2>(half);
  }
}
// Whether any bit of a vector is set; of a mask, whether it holds in any lane.
template <class V>
FCNKERN_INLINE bool any(V v) {
  return any_bit<sizeof(V)>(&v);
}
template <class M>
FCNKERN_INLINE bool all(M mask) {
  return !any(~mask);
}
// Sum over the lanes in double, lane 0 first.
template <class V>
FCNKERN_INLINE double sum(V v) {
  double total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += static_cast<double>(v[lane]);
  return total;
}

// Lane i of the result is lane index[i] of v; 0 <= index[i] < kLanes.
template <class T>
FCNKERN_INLINE Vec<T> permute(Vec<T> v, Mask<T> index) {
#ifdef __clang__
  Vec<T> result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = v[index[lane]];
  return result;
#else
  return __builtin_shuffle(v, index);
#endif
}
// Lane i of the result is lane index[i] of a, or lane index[i] - kLanes of b; 0 <= index[i] < 2 kLanes.
template <class T>
FCNKERN_INLINE Vec<T> permute(Vec<T> a, Vec<T> b, Mask<T> index) {
#ifdef __clang__
  Vec<T> result;
  for (int lane = 0; lane < kLanes; ++lane)
    result[lane] = index[lane] < kLanes ? a[index[lane]] : b[index[lane] - kLanes];
  return result;
#else
  return __builtin_shuffle(a, b, index);
#endif
}
// Every second of the numbers of a and b, from the first on and from the second on.
template <class T>
FCNKERN_INLINE Vec<T> evens(Vec<T> a, Vec<T> b) {
  Mask<T> index;
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = 2 * lane;
  return permute<T>(a, b, index);
}
template <class T>
FCNKERN_INLINE Vec<T> odds(Vec<T> a, Vec<T> b) {
  Mask<T> index;
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = 2 * lane + 1;
  return permute<T>(a, b, index);
}
// Every second number of a from the first on, and of b from the second on.
template <class T>
FCNKERN_INLINE Vec<T> evens_then_odds(Vec<T> a, Vec<T> b) {
  Mask<T> index;
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = 2 * lane + 2 * lane / kLanes;
  return permute<T>(a, b, index);
}
// Numbers of a and b in turn: those of their lower halves, and of their upper ones.
template <class T>
FCNKERN_INLINE Vec<T> low_pairs(Vec<T> a, Vec<T> b) {
  Mask<T> index;
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = lane / 2 + lane % 2 * kLanes;
  return permute<T>(a, b, index);
}
template <class T>
FCNKERN_INLINE Vec<T> high_pairs(Vec<T> a, Vec<T> b) {
  Mask<T> index;
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = (lane + kLanes) / 2 + lane % 2 * kLanes;
  return permute<T>(a, b, index);
}
// Every lane takes its left neighbour's number, lane 0 takes 0.
template <class T>
FCNKERN_INLINE Vec<T> shift_lanes(Vec<T> v) {
  Mask<T> left{};
  for (int lane = 1; lane < kLanes; ++lane) left[lane] = lane - 1;
  Vec<T> shifted = permute<T>(v, left);
  shifted[0] = 0;
  return shifted;
}

// Bits of a float vector as integers, and back.
FCNKERN_INLINE VecI bits(VecF v) { return (VecI)v; }
FCNKERN_INLINE VecF from_bits(VecI v) { return (VecF)v; }
FCNKERN_INLINE VecF to_float(VecI v) { return __builtin_convertvector(v, VecF); }

// 2^(x + shift) for |x + shift| <= 126, relative error 4e-9 before rounding. The shift goes into the exponent
// bits, so that x keeps its own precision. Adding 1.5 * 2^23 rounds x to an integer (needs -fno-fast-math).
FCNKERN_INLINE VecF exp2_shifted(VecF x, int shift) {
  const float round = 12582912.0f;
  const VecF rounded = x + round;
  const VecF f = x - (rounded - round);
  VecF p = splat(1.546972148e-04f);
  p = p * f + 1.339086637e-03f;
  p = p * f + 9.618030805e-03f;
  p = p * f + 5.550357107e-02f;
  p = p * f + 2.402265108e-01f;
  p = p * f + 6.931471880e-01f;
  p = p * f + 1.0f;
  return from_bits(bits(p) + ((bits(rounded) + shift) << 23));  // the rounding constant's own bits shift out
}
FCNKERN_INLINE VecF exp2(VecF x) { return exp2_shifted(x, 0); }

// log2(x) + shift of normal positive numbers, error 4e-8 relative to log2(1 + t) with t the reduced mantissa.
FCNKERN_INLINE VecF log2_shifted(VecF x, int shift) {
  const VecI exponent = (bits(x) - 0x3f3504f3) >> 23;  // mantissa in [sqrt(1/2), sqrt(2))
  const VecF t = from_bits(bits(x) - (exponent << 23)) - 1.0f;
  VecF p = splat(1.292662060e-01f);
  p = p * t - 2.089333730e-01f;
  p = p * t + 2.152114813e-01f;
  p = p * t - 2.386757155e-01f;
  p = p * t + 2.879391710e-01f;
  p = p * t - 3.607162665e-01f;
  p = p * t + 4.809102772e-01f;
  p = p * t - 7.213471990e-01f;
  p = p * t + 1.442695005e+00f;
  return p * t + to_float(exponent + shift);
}
FCNKERN_INLINE VecF log2(VecF x) { return log2_shifted(x, 0); }

// The storage types of scores as float. The loops over these vectorise.
FCNKERN_INLINE float bits_to_float(uint32_t word) {
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}
struct BFloat16 {
  uint16_t word;
  operator float() const { return bits_to_float(static_cast<uint32_t>(word) << 16); }
};
struct Float16 {
  uint16_t word;
  // The exponent is rebiased by a multiplication, which also normalises subnormal numbers.
  operator float() const {
    const uint32_t magnitude = word & 0x7fffu;
    const float finite = bits_to_float(magnitude << 13) * 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &finite, sizeof bits);
    const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
    return bits_to_float(bits | special | (static_cast<uint32_t>(word & 0x8000u) << 16));
  }
};

}  // namespace fcnkern::FCNKERN_ISA
