// The threads of an OpenMP region.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <cstdint>

namespace fcnkern::FCNKERN_ISA {

// Of the thread that asks, from 0 on.
inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Units of work cut into shares that threads take as they come: one unit each, and of the rest parts that
// shrink evenly to nothing, so that threads of unequal speed end together.
class Shares {
 public:
  Shares(int64_t units, int threads) : count_(share_count(units, threads)), rest_(units - count_) {}

  int64_t count() const { return count_; }
  int64_t begin(int64_t share) const {
    const int64_t left = count_ - share;
    return count_ == 0 ? 0 : share + rest_ - rest_ * left * left / (count_ * count_);
  }
  int64_t end(int64_t share) const { return begin(share + 1); }

 private:
  static int64_t share_count(int64_t units, int threads) {
    constexpr int64_t kPerThread = 4;
    if (threads == 1) return units > 0;
    return units < kPerThread * threads ? units : kPerThread * threads;
  }

  int64_t count_, rest_;
};

}  // namespace fcnkern::FCNKERN_ISA
