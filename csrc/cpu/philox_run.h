// Philox4x32-10 for many counters at once.
#pragma once

#include "philox.h"
#include "simd.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace fcnkern::FCNKERN_ISA {

// Words of some counters, in the lower halves of lanes; what the upper halves hold is of no account.
typedef uint64_t PhiloxLanes __attribute__((vector_size(sizeof(VecF))));

// The products of the lower halves.
FCNKERN_INLINE PhiloxLanes multiply_words(PhiloxLanes a, PhiloxLanes b) {
#if defined(__AVX512F__)
  return (PhiloxLanes)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);  // GCC 12 warns of the plain one
#elif defined(__AVX2__)
  return (PhiloxLanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (PhiloxLanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// philox_round on vectors.
FCNKERN_INLINE void philox_round(uint64_t key0, uint64_t key1, PhiloxLanes (&c)[4]) {
  const PhiloxLanes product0 = multiply_words(c[0], PhiloxLanes{} + kPhiloxMultiplier0),
                    product1 = multiply_words(c[2], PhiloxLanes{} + kPhiloxMultiplier1);
  c[0] = (product1 >> 32) ^ c[1] ^ key0;
  c[1] = product1;
  c[2] = (product0 >> 32) ^ c[3] ^ key1;
  c[3] = product0;
}

// Counters are drawn so many at a time, four vectors, as each waits for its own products.
constexpr int kPhiloxRun = 4 * sizeof(PhiloxLanes) / sizeof(uint64_t);

// The first words for the counters (i, c1, c2, c3), i < count; `out` has room for kPhiloxRun more.
FCNKERN_INLINE void philox4x32_run(uint64_t key, uint32_t c1, uint32_t c2, uint32_t c3, int64_t count,
                                   uint32_t* out) {
  constexpr int kWords = kPhiloxRun / 4;
  typedef uint32_t Words __attribute__((vector_size(kWords * sizeof(uint32_t)), aligned(4), may_alias));
  PhiloxLanes start[4];
  for (uint32_t i = 0; i < kPhiloxRun; ++i) start[i / kWords][i % kWords] = i;
  for (int64_t done = 0; done < count; done += kPhiloxRun) {
    PhiloxLanes word[4][4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      word[g][0] = start[g] + static_cast<uint64_t>(done);
      word[g][1] = PhiloxLanes{} + c1, word[g][2] = PhiloxLanes{} + c2, word[g][3] = PhiloxLanes{} + c3;
    }
#pragma GCC unroll 10
    for (uint32_t round = 0; round < 10; ++round)
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) philox_round(philox_key0(key, round), philox_key1(key, round), word[g]);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g)
      *reinterpret_cast<Words*>(out + done + g * kWords) = __builtin_convertvector(word[g][0], Words);
  }
}

}  // namespace fcnkern::FCNKERN_ISA
