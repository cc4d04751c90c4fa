// The threads of an OpenMP region.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <cstdint>

namespace fcnkern::FCNKERN_ISA {

// Calls run(thread) with thread 0 and, side by side, with as many of the others < `threads` as OpenMP grants: no
// work may belong to one of them. They are in a team of all threads that a caller has: libgomp ends those that a
// smaller team leaves out, and the next team of all, such as PyTorch's, must start them again.
template <class Run>
void on_threads(int threads, Run run) {
#ifdef _OPENMP
  if (threads > 1) {
    const int all = omp_get_max_threads();
#pragma omp parallel num_threads(all > threads ? all : threads)
    if (omp_get_thread_num() < threads) run(omp_get_thread_num());
    return;
  }
#endif
  run(0);
}

// Numbers below `count`, each given to the thread that comes for it first.
class Turns {
 public:
  explicit Turns(int64_t count) : count_(count) {}

  template <class Run>
  void take(Run run) {
    for (int64_t i; (i = __atomic_fetch_add(&next_, 1, __ATOMIC_RELAXED)) < count_;) run(i);
  }

 private:
  const int64_t count_;
  int64_t next_ = 0;
};

// Calls run(i, thread) for every i < count, on as many threads, which take the next i as they come.
template <class Run>
void for_each(int64_t count, int threads, Run run) {
  Turns turns(count);
  on_threads(threads, [&](int thread) { turns.take([&](int64_t i) { run(i, thread); }); });
}

// Units of work cut into shares that threads take as they come: one unit each, and of the rest parts that
// shrink evenly to nothing, so that threads of unequal speed end together.
class Shares {
 public:
  Shares(int64_t units, int threads) : count_(share_count(units, threads)), rest_(units - count_) {}

  int64_t count() const { return count_; }
  int64_t begin(int64_t share) const {
    const int64_t left = count_ - share;
    return share + rest_ - rest_ * left * left / (count_ * count_);
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

// Calls run(first, last, thread) for shares of as many units, on as many threads.
template <class Run>
void for_each_share(int64_t units, int threads, Run run) {
  const Shares shares(units, threads);
  for_each(shares.count(), threads,
           [&](int64_t share, int thread) { run(shares.begin(share), shares.end(share), thread); });
}

}  // namespace fcnkern::FCNKERN_ISA
