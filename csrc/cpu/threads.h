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

// Into how many shares some units of work are cut. Threads take them as they come, so that those of unequal
// speed end together.
inline int64_t share_count(int64_t units, int threads) {
  constexpr int64_t kPerThread = 4;
  if (threads == 1) return 1;
  return units < kPerThread * threads ? units : kPerThread * threads;
}

}  // namespace fcnkern::FCNKERN_ISA
