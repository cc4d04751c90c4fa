// Runs the threads of one block to their ends, in the order of the configuration.
#pragma once

#include <algorithm>
#include <utility>

#include "cuda_emu_machine.h"

namespace cuemu {

// The first function of a fiber: the kernel for one thread.
[[noreturn]] CUEMU_RAW inline void enter_kernel() {
  Machine& m = machine();
  const void* stack = nullptr;
  asan::arrive(nullptr, &stack, &m.scheduler.stack_bytes);
  m.scheduler.stack = static_cast<char*>(const_cast<void*>(stack));
  m.body(m.arguments);
  m.current->state = State::kDone;
  tsan::release(&m.at_end);
  jump(m.current->fiber, m.scheduler, true);
  abort();
}

// A stack for a thread. ThreadSanitizer's fibers keep theirs: two on one stack would race for its variables.
CUEMU_RAW inline char* take_stack(int thread) {
  Machine& m = machine();
  if (!tsan::kOn) return m.free_stack_count ? m.free_stacks[--m.free_stack_count] : new_stack();
  char*& own = m.stacks[m.set][thread];
  if (!own) own = new_stack();
  return own;
}

CUEMU_RAW inline void give_stack(char* stack) {
  Machine& m = machine();
  if (!tsan::kOn) m.free_stacks[m.free_stack_count++] = stack;
}

// Runs a thread until it waits or ends.
CUEMU_RAW inline void run(Thread& thread) {
  Machine& m = machine();
  if (thread.state == State::kNew) {
    prepare(thread.fiber, take_stack(thread.index), enter_kernel);
    tsan::release(&m.at_start);  // all before the launch happens before the thread
    tsan::become(thread.fiber.tsan);
    tsan::acquire(&m.at_start);
    tsan::become(m.scheduler.tsan);
  }
  thread.state = State::kReady;
  m.current = &thread;
  threadIdx = thread.position;
  jump(m.scheduler, thread.fiber);
  m.current = nullptr;
  if (thread.state == State::kDone) give_stack(thread.fiber.stack);
  if (!m.error[0]) return;
  tsan::acquire(&m.at_end);
  throw std::runtime_error(m.error);
}

// For ThreadSanitizer: all that these threads did before happens before all that any of them does after.
template <class Threads>
CUEMU_RAW void order(const Threads& threads, void* token) {
  if (!tsan::kOn) return;
  threads([token](Thread& thread) CUEMU_RAW {
    tsan::become(thread.fiber.tsan);
    tsan::release(token);
  });
  threads([token](Thread& thread) CUEMU_RAW {
    tsan::become(thread.fiber.tsan);
    tsan::acquire(token);
  });
  tsan::become(machine().scheduler.tsan);
}

// The lanes of a warp that have not ended, and those of them that wait in a collective.
struct Warp {
  Thread* lanes;
  int size;
  unsigned alive = 0, waiting = 0;

  CUEMU_RAW explicit Warp(int number)
      : lanes(machine().threads + number * 32), size(std::min(32, machine().thread_count - number * 32)) {
    for (int i = 0; i < size; ++i) {
      if (lanes[i].state != State::kDone) alive |= 1u << i;
      if (lanes[i].state == State::kInCollective) waiting |= 1u << i;
    }
  }
};

// Whether all of a lane's group have arrived. Fails where two lanes wait for each other in different
// collectives.
CUEMU_RAW inline bool group_is_complete(const Warp& warp, const Thread& lane) {
  const unsigned group = lane.mask & warp.alive;
  bool complete = (group & warp.waiting) == group;
  for (unsigned rest = group & warp.waiting; rest; rest &= rest - 1) {
    const Thread& other = warp.lanes[__builtin_ctz(rest)];
    if (other.mask == lane.mask && other.fn == lane.fn && other.line == lane.line) continue;
    if (other.mask >> lane.lane() & 1)
      fail("warp %d: lane %d (mask %08x, %s:%d) and lane %d (mask %08x, %s:%d) wait for each other in "
           "different warp collectives",
           lane.index / 32, lane.lane(), lane.mask, lane.file, lane.line, other.lane(), other.mask,
           other.file, other.line);
    complete = false;  // the other is in a smaller group, which goes first
  }
  return complete;
}

CUEMU_RAW inline void run_collective(const Warp& warp, unsigned group) {
  Machine& m = machine();
  const Thread& first = warp.lanes[__builtin_ctz(group)];
  const auto each = [&](auto&& act) CUEMU_RAW {
    for (unsigned rest = group; rest; rest &= rest - 1) act(warp.lanes[__builtin_ctz(rest)]);
  };
  void* slots[32] = {};
  each([&](Thread& lane) CUEMU_RAW { slots[lane.lane()] = lane.slot; });
  if (first.fn) first.fn(slots, group);
  if (first.orders) order(each, &m.at_warp[m.set][first.index]);
  each([](Thread& lane) CUEMU_RAW { lane.state = State::kReady; });
}

// Finishes the warp's collectives whose lanes have all arrived; says whether there was one.
CUEMU_RAW inline bool release_warp(int number) {
  const Warp warp(number);
  bool any = false;
  for (unsigned rest = warp.waiting; rest;) {
    const Thread& lane = warp.lanes[__builtin_ctz(rest)];
    const bool complete = group_is_complete(warp, lane);
    const unsigned group = complete ? lane.mask & warp.alive : 1u << lane.lane();
    rest &= ~group;
    if (complete) run_collective(warp, group);
    any |= complete;
  }
  return any;
}

// Lets the block pass its barrier where all threads that have not ended stand there; says whether it did.
CUEMU_RAW inline bool release_block() {
  Machine& m = machine();
  const auto all = [&m](auto&& act) CUEMU_RAW {
    for (int i = 0; i < m.thread_count; ++i) act(m.threads[i]);
  };
  int arrived = 0, alive = 0, count = 0;
  const Thread* first = nullptr;
  all([&](Thread& thread) CUEMU_RAW {
    alive += thread.state != State::kDone;
    if (thread.state != State::kAtBarrier) return;
    ++arrived;
    count += thread.predicate != 0;
    if (!first) first = &thread;
  });
  if (!arrived || arrived != alive) return false;
  all([&](Thread& thread) CUEMU_RAW {
    if (thread.state == State::kDone)
      fail("thread %d had exited before the __syncthreads at %s:%d", thread.index, first->file, first->line);
    if (thread.line != first->line || thread.file != first->file)
      fail("divergent __syncthreads: thread %d at %s:%d, thread %d at %s:%d", first->index, first->file,
           first->line, thread.index, thread.file, thread.line);
    thread.count = count;
    thread.state = State::kReady;
  });
  order(all, &m.at_barrier[m.set]);
  return true;
}

CUEMU_RAW inline void permute(int* numbers, int count) {
  const Order order = machine().config.order;
  for (int i = 0; i < count; ++i) numbers[i] = order == Order::kReverse ? count - 1 - i : i;
  if (order != Order::kRandom) return;
  for (int i = count - 1; i > 0; --i) std::swap(numbers[i], numbers[random_below(i + 1)]);
}

// Runs a warp until all of its threads wait for the block or have ended; says whether any ran. In random
// order it gives way before that, with probability 1/8: warps that go nearly in step would hide a missing
// trailing barrier.
CUEMU_RAW inline bool run_warp(int number) {
  Machine& m = machine();
  const int size = std::min(32, m.thread_count - number * 32);
  int lanes[32];
  bool progress = false;
  for (;;) {
    permute(lanes, size);
    for (int i = 0; i < size; ++i) {
      Thread& thread = m.threads[number * 32 + lanes[i]];
      if (thread.state != State::kNew && thread.state != State::kReady) continue;
      run(thread);
      progress = true;
    }
    const bool released = release_warp(number);
    progress |= released;
    if (!released || (m.config.order == Order::kRandom && random_below(8) == 0)) return progress;
  }
}

// Tells where the threads wait, the first of each run of threads that wait at the same place.
[[noreturn]] CUEMU_RAW inline void fail_of_deadlock() {
  Machine& m = machine();
  char places[512] = "";
  size_t used = 0;
  const Thread* previous = nullptr;
  for (int i = 0; i < m.thread_count && used < sizeof places - 130; ++i) {
    const Thread& t = m.threads[i];
    if (t.state == State::kDone) continue;
    if (previous && previous->line == t.line && previous->state == t.state) continue;
    const char* what = t.state == State::kAtBarrier ? "__syncthreads" : "warp collective";
    used += snprintf(places + used, sizeof places - used, " thread %d at %s %s:%d;", i, what, t.file, t.line);
    previous = &t;
  }
  fail("deadlock:%s", places);
}

CUEMU_RAW inline bool all_done() {
  Machine& m = machine();
  const auto done = [](const Thread& thread) CUEMU_RAW { return thread.state == State::kDone; };
  return std::all_of(m.threads, m.threads + m.thread_count, done);
}

CUEMU_RAW inline void run_block() {
  const int warp_count = (machine().thread_count + 31) / 32;
  int warps[32];
  while (!all_done()) {
    permute(warps, warp_count);
    bool progress = false;
    for (int i = 0; i < warp_count; ++i) progress |= run_warp(warps[i]);
    progress |= release_block();
    if (!progress && !all_done()) fail_of_deadlock();
  }
}

}  // namespace cuemu
