// The threads of an OpenMP region.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <cstdint>
#include <vector>

namespace fcnkern::FCNKERN_ISA {

// Of the thread that asks, from 0 on.
inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Units of work cut into shares that threads take as they come. Each is a part of what is then left, so that
// threads of unequal speed end together.
class Shares {
 public:
  Shares(int64_t units, int threads) {
    constexpr int64_t kPart = 2, kLeast = 32;  // per thread
    const int64_t least = units / (kLeast * threads) + 1;
    for (int64_t at = 0; at < units;) {
      begins_.push_back(at);
      const int64_t left = units - at, size = threads == 1 ? left : left / (kPart * threads);
      at += size > least ? size : least < left ? least : left;
    }
    begins_.push_back(units);
  }

  int64_t count() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t begin(int64_t share) const { return begins_[share]; }
  int64_t end(int64_t share) const { return begins_[share + 1]; }

 private:
  std::vector<int64_t> begins_;
};

}  // namespace fcnkern::FCNKERN_ISA
