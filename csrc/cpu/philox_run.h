// Philox4x32-10 for many counters at once.
#pragma once

#include "philox.h"

namespace fcnkern {

// The first words for the counters (first + i, c1, c2, c3), i < count <= 64. The loops vectorise.
FCNKERN_ANYWHERE void philox4x32_run(uint64_t key, uint32_t first, uint32_t c1, uint32_t c2, uint32_t c3,
                                     int count, uint32_t* out) {
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
