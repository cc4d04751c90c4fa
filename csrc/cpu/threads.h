// The threads of an OpenMP region.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

namespace fcnkern::FCNKERN_ISA {

// Of the thread that asks, from 0 on.
inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace fcnkern::FCNKERN_ISA
