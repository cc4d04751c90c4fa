// Barriers, shuffles, votes and reductions. Those of a warp honour their masks.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda_emu_scheduler.h"

// Where the kernel calls it, for messages and to tell one call from another.
#define CUEMU_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace cuemu {

// Waits for the block; returns in how many threads the predicate is not 0.
CUEMU_RAW inline int block_bar(int predicate, const char* file, int line) {
  Thread& thread = *machine().current;
  thread.predicate = predicate;
  thread.file = file, thread.line = line;
  thread.state = State::kAtBarrier;
  yield();
  return thread.count;
}

// Waits for the lanes in `mask`; then `fn` is called once for them all, with the slots of those that have not
// ended.
CUEMU_RAW inline void warp_op(unsigned mask, WarpFn fn, void* slot, bool orders, const char* file,
                              int line) {
  Thread& thread = *machine().current;
  const int lane = thread.lane();
  if (!(mask >> lane & 1))
    fail("%s:%d: the calling lane %d is not in its own mask %08x", file, line, lane, mask);
  thread.mask = mask, thread.fn = fn, thread.slot = slot, thread.orders = orders;
  thread.file = file, thread.line = line;
  thread.state = State::kInCollective;
  yield();
}

// Calls `act` with the slots of the active lanes, as T.
template <class T, class Act>
CUEMU_RAW void for_active(void** slots, unsigned active, Act&& act) {
  for (unsigned rest = active; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    act(*static_cast<T*>(slots[lane]), lane);
  }
}

template <class T>
struct Shuffle {
  T value;
  int source;
  T result;
  bool absent;

  CUEMU_RAW static void exchange(void** slots, unsigned active) {
    for_active<Shuffle>(slots, active, [slots](Shuffle& mine, int) CUEMU_RAW {
      const auto* other = static_cast<const Shuffle*>(slots[mine.source]);
      mine.absent = other == nullptr;
      memcpy(&mine.result, other ? &other->value : &mine.value, sizeof(T));
    });
  }
};

template <class T>
CUEMU_RAW T shfl(unsigned mask, T value, int source, const char* file, int line) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "shuffles move 4 or 8 bytes");
  Shuffle<T> slot{value, source, value, false};
  warp_op(mask, Shuffle<T>::exchange, &slot, false, file, line);
  if (slot.absent)
    fail("%s:%d: a shuffle reads lane %d, which does not take part (exited, absent or not in the mask)", file,
         line, source);
  return slot.result;
}

struct Vote {
  unsigned long long value;
  unsigned result = 0;

  CUEMU_RAW static void ballot(void** slots, unsigned active) {
    unsigned set = 0;
    for_active<Vote>(slots, active, [&](Vote& v, int lane) CUEMU_RAW {
      set |= unsigned(v.value != 0) << lane;
    });
    for_active<Vote>(slots, active, [&](Vote& v, int) CUEMU_RAW { v.result = set; });
  }
  CUEMU_RAW static void match(void** slots, unsigned active) {
    for_active<Vote>(slots, active, [&](Vote& mine, int) CUEMU_RAW {
      for_active<Vote>(slots, active, [&](Vote& other, int lane) CUEMU_RAW {
        mine.result |= unsigned(other.value == mine.value) << lane;
      });
    });
  }
};

CUEMU_RAW inline unsigned vote(unsigned mask, unsigned long long value, WarpFn fn, const char* file,
                               int line) {
  Vote slot{value};
  warp_op(mask, fn, &slot, false, file, line);
  return slot.result;
}

template <class T, class Combine>
struct Reduction {
  T value;
  Combine combine;

  CUEMU_RAW static void run(void** slots, unsigned active) {
    const auto& first = *static_cast<Reduction*>(slots[__builtin_ctz(active)]);
    T total = first.value;
    for_active<Reduction>(slots, active & (active - 1), [&](Reduction& lane, int) CUEMU_RAW {
      total = first.combine(total, lane.value);
    });
    for_active<Reduction>(slots, active, [&](Reduction& lane, int) CUEMU_RAW { lane.value = total; });
  }
};

}  // namespace cuemu

inline void __syncthreads(CUEMU_AT) { cuemu::block_bar(0, file, line); }
inline int __syncthreads_count(int p, CUEMU_AT) { return cuemu::block_bar(p, file, line); }
inline int __syncthreads_or(int p, CUEMU_AT) { return cuemu::block_bar(p, file, line) != 0; }
inline int __syncthreads_and(int p, CUEMU_AT) { return cuemu::block_bar(!p, file, line) == 0; }
inline void __syncwarp(unsigned mask = ~0u, CUEMU_AT) {
  cuemu::warp_op(mask, nullptr, nullptr, true, file, line);
}

// A source outside of the lane's segment of `width` lanes is the lane itself, but for __shfl_sync, which
// wraps around.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUEMU_AT) {
  const int segment = cuemu::lane_id() & ~(width - 1);
  return cuemu::shfl(mask, value, segment | (source & (width - 1)), file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUEMU_AT) {
  const int lane = cuemu::lane_id(), source = lane ^ bits, end = (lane & ~(width - 1)) + width;
  return cuemu::shfl(mask, value, source >= end ? lane : source, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUEMU_AT) {
  const int lane = cuemu::lane_id(), source = lane + int(delta), end = (lane & ~(width - 1)) + width;
  return cuemu::shfl(mask, value, source >= end ? lane : source, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUEMU_AT) {
  const int lane = cuemu::lane_id(), source = lane - int(delta), begin = lane & ~(width - 1);
  return cuemu::shfl(mask, value, source < begin ? lane : source, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int p, CUEMU_AT) {
  return cuemu::vote(mask, p != 0, cuemu::Vote::ballot, file, line);
}
inline int __any_sync(unsigned mask, int p, CUEMU_AT) { return __ballot_sync(mask, p, file, line) != 0; }
inline int __all_sync(unsigned mask, int p, CUEMU_AT) { return __ballot_sync(mask, !p, file, line) == 0; }
template <class T>
unsigned __match_any_sync(unsigned mask, T value, CUEMU_AT) {
  unsigned long long bits = 0;
  memcpy(&bits, &value, sizeof value);
  return cuemu::vote(mask, bits, cuemu::Vote::match, file, line);
}

template <class T, class Combine>
T cuemu_reduce(unsigned mask, T value, Combine combine, const char* file, int line) {
  static_assert(std::is_integral_v<T>, "__reduce_*_sync takes integers");
  using Slot = cuemu::Reduction<T, Combine>;
  Slot slot{value, combine};
  cuemu::warp_op(mask, Slot::run, &slot, false, file, line);
  return slot.value;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, CUEMU_AT) {
  return cuemu_reduce(mask, value, [](T a, T b) { return T(a + b); }, file, line);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, CUEMU_AT) {
  return cuemu_reduce(mask, value, [](T a, T b) { return std::max(a, b); }, file, line);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, CUEMU_AT) {
  return cuemu_reduce(mask, value, [](T a, T b) { return std::min(a, b); }, file, line);
}
