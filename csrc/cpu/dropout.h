// Inverted element-wise dropout as a pure function of seed and element: element e is kept iff word e % 4 of
// philox(seed, (e / 4, 0, 1)) >= p * 2^32.
#pragma once

#include <cmath>
#include <cstdint>

#include "philox.h"
#include "simd.h"

namespace fcnkern::FCNKERN_ISA {

class Dropout {
 public:
  Dropout(double p, uint64_t seed)
      : seed_(seed),
        threshold_(static_cast<uint64_t>(std::ceil(p * 4294967296.0))),
        scale_(p < 1 ? 1 / (1 - p) : 0) {}

  double scale() const { return scale_; }

  // values[i] is element first + i: scales or clears it.
  template <class T>
  void apply(T* values, int64_t count, uint64_t first) const {
    constexpr int kBlocks = 16;
    uint32_t words[4 * kBlocks];
    const T scale = static_cast<T>(scale_);
    for (int64_t done = -static_cast<int64_t>(first % 4); done < count; done += 4 * kBlocks) {
      const uint64_t block = (first + static_cast<uint64_t>(done)) / 4;
      for (int i = 0; i < kBlocks; ++i) {
        const uint64_t counter = block + static_cast<uint64_t>(i);
        const PhiloxBlock drawn =
            philox4x32(seed_, {{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 1}});
        for (int w = 0; w < 4; ++w) words[4 * i + w] = drawn.word[w];
      }
      const int64_t begin = done < 0 ? -done : 0,
                    end = count - done < 4 * kBlocks ? count - done : 4 * kBlocks;
      for (int64_t i = begin; i < end; ++i) {
        const T kept = values[done + i] * scale;
        values[done + i] = words[i] >= threshold_ ? kept : T{0};
      }
    }
  }

 private:
  uint64_t seed_, threshold_;
  double scale_;
};

}  // namespace fcnkern::FCNKERN_ISA
