// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011).
#pragma once

#include <cstdint>

namespace fcnkern {

struct PhiloxBlock {
  uint32_t word[4];
};

// One round on (c0, c1, c2, c3).
static inline __attribute__((always_inline)) void philox_round(uint32_t key0, uint32_t key1, uint32_t& c0,
                                                               uint32_t& c1, uint32_t& c2, uint32_t& c3) {
  const uint64_t product0 = uint64_t{0xD2511F53u} * c0, product1 = uint64_t{0xCD9E8D57u} * c2;
  c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
  c1 = static_cast<uint32_t>(product1);
  c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
  c3 = static_cast<uint32_t>(product0);
}

// The keys of round `round` of ten; the low half of the key is the first key word.
static inline __attribute__((always_inline)) uint32_t philox_key0(uint64_t key, uint32_t round) {
  return static_cast<uint32_t>(key) + round * 0x9E3779B9u;
}
static inline __attribute__((always_inline)) uint32_t philox_key1(uint64_t key, uint32_t round) {
  return static_cast<uint32_t>(key >> 32) + round * 0xBB67AE85u;
}

static inline __attribute__((always_inline)) PhiloxBlock philox4x32(uint64_t key, PhiloxBlock counter) {
  PhiloxBlock c = counter;
  for (uint32_t round = 0; round < 10; ++round)
    philox_round(philox_key0(key, round), philox_key1(key, round), c.word[0], c.word[1], c.word[2],
                 c.word[3]);
  return c;
}

// The first words for the counters (first + i, c1, c2, c3), i < count <= 64. The loops vectorise.
static inline __attribute__((always_inline)) void philox4x32_run(uint64_t key, uint32_t first, uint32_t c1,
                                                                 uint32_t c2, uint32_t c3, int count,
                                                                 uint32_t* out) {
  uint32_t word[4][64];
  for (int i = 0; i < 64; ++i) {
    word[0][i] = first + static_cast<uint32_t>(i);
    word[1][i] = c1, word[2][i] = c2, word[3][i] = c3;
  }
  for (uint32_t round = 0; round < 10; ++round) {
    const uint32_t key0 = philox_key0(key, round), key1 = philox_key1(key, round);
    for (int i = 0; i < 64; ++i) philox_round(key0, key1, word[0][i], word[1][i], word[2][i], word[3][i]);
  }
  for (int i = 0; i < count; ++i) out[i] = word[0][i];
}

}  // namespace fcnkern
