// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011).
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FCNKERN_ANYWHERE __host__ __device__ __forceinline__
#else
#define FCNKERN_ANYWHERE static inline __attribute__((always_inline))
#endif

namespace fcnkern {

struct PhiloxBlock {
  uint32_t word[4];
};

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;

// One round on (c0, c1, c2, c3).
FCNKERN_ANYWHERE void philox_round(uint32_t key0, uint32_t key1, uint32_t& c0, uint32_t& c1, uint32_t& c2,
                                   uint32_t& c3) {
  const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * c0, product1 = uint64_t{kPhiloxMultiplier1} * c2;
  c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
  c1 = static_cast<uint32_t>(product1);
  c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
  c3 = static_cast<uint32_t>(product0);
}

// The keys of round `round` of ten; the low half of the key is the first key word.
FCNKERN_ANYWHERE uint32_t philox_key0(uint64_t key, uint32_t round) {
  return static_cast<uint32_t>(key) + round * 0x9E3779B9u;
}
FCNKERN_ANYWHERE uint32_t philox_key1(uint64_t key, uint32_t round) {
  return static_cast<uint32_t>(key >> 32) + round * 0xBB67AE85u;
}

FCNKERN_ANYWHERE PhiloxBlock philox4x32(uint64_t key, PhiloxBlock counter) {
  PhiloxBlock c = counter;
  for (uint32_t round = 0; round < 10; ++round)
    philox_round(philox_key0(key, round), philox_key1(key, round), c.word[0], c.word[1], c.word[2],
                 c.word[3]);
  return c;
}

}  // namespace fcnkern
