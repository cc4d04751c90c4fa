// The one emulated device: the threads of the block that runs, its memory, and how an error leaves a kernel.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "cuda_emu_fiber.h"

namespace cuemu {

constexpr int kMaxThreads = 1024;
constexpr int kMaxShared = 64;      // shared arrays of a block
constexpr int kMaxAttributes = 256;  // kernels that asked for more than 48 KiB

// ThreadSanitizer's fibers cost 1.2 MB each and are used again by later blocks. With two sets a block and the
// next one have none in common, so that nothing orders the two.
constexpr int kFiberSets = 2;

enum class Order { kForward, kReverse, kRandom };
enum class State : uint8_t { kNew, kReady, kAtBarrier, kInCollective, kDone };

// Computes the results of a warp collective for the lanes in `active`, from and into the slots of those
// lanes.
using WarpFn = void (*)(void** slots, unsigned active);

struct Thread {
  Fiber fiber;
  uint3 position;
  int index = 0;  // in the block
  State state = State::kDone;

  // What it waits for.
  unsigned mask = 0;     // the lanes of the collective
  WarpFn fn = nullptr;   // called once for the group, when its last lane arrives
  void* slot = nullptr;  // this lane's operands and result
  bool orders = false;   // __syncwarp orders memory; shuffles and votes do not
  int predicate = 0, count = 0;  // of __syncthreads_count
  const char* file = nullptr;
  int line = 0;

  int lane() const { return index & 31; }
};

struct Config {
  Order order = Order::kForward;
  uint64_t seed = 1;
  size_t shared_limit = 227 << 10;
};

struct Machine {
  Thread threads[kMaxThreads];
  int thread_count = 0;       // of a block
  Thread* current = nullptr;  // null: the scheduler runs
  Fiber scheduler;
  void (*body)(void*) = nullptr;  // calls the kernel with the arguments in `arguments`
  void* arguments = nullptr;
  uint64_t block = 0;  // how many have been started: names the one that runs
  uint64_t random = 1;
  char error[768] = "";
  Config config;

  char* free_stacks[kMaxThreads];
  int free_stack_count = 0;

  void* shared[kMaxShared];
  int shared_count = 0;
  size_t shared_bytes = 0, shared_allowed = 0;  // of the block that runs
  void* dynamic_shared = nullptr;

  struct Attribute {
    const void* kernel;
    size_t shared_limit;
  };
  Attribute attributes[kMaxAttributes] = {};

  // ThreadSanitizer. The addresses are tokens to release and to acquire; what they hold is of no account.
  int set = 0;
  void* fibers[kFiberSets][kMaxThreads] = {};
  char* stacks[kFiberSets][kMaxThreads] = {};
  char at_start, at_end, at_fence, at_barrier[kFiberSets], at_warp[kFiberSets][kMaxThreads];
};

CUEMU_RAW inline Config config_of_environment() {
  Config config;
  if (const char* name = getenv("CUEMU_ORDER")) {
    if (!strcmp(name, "reverse")) config.order = Order::kReverse;
    else if (!strcmp(name, "random")) config.order = Order::kRandom;
    else if (strcmp(name, "forward") != 0) {
      fprintf(stderr, "cuda_emu: CUEMU_ORDER must be forward, reverse or random, got %s\n", name);
      abort();
    }
  }
  if (const char* number = getenv("CUEMU_SEED")) config.seed = strtoull(number, nullptr, 10);
  return config;
}

inline Machine& machine() {
  static Machine* const the_machine = [] {
    auto* made = new Machine;  // never deleted: kernels may run while the process ends
    made->config = config_of_environment();
    return made;
  }();
  return *the_machine;
}

CUEMU_RAW inline unsigned random_below(unsigned bound) {
  uint64_t& x = machine().random;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return static_cast<unsigned>((x >> 33) % bound);
}

// From a thread to the scheduler, which comes back when the thread may go on.
CUEMU_RAW inline void yield() {
  Machine& m = machine();
  jump(m.current->fiber, m.scheduler);
}

// Ends the launch, which returns cudaErrorLaunchFailure with this text. From a thread of the kernel and from
// the scheduler; only the latter may throw, for the stack of a fiber has no caller.
[[noreturn]] CUEMU_RAW inline void fail(const char* format, ...) {
  Machine& m = machine();
  char* const end = m.error + sizeof m.error;
  char* at = m.error;
  at += snprintf(at, end - at, "block (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z);
  if (m.current) {
    const uint3 p = m.current->position;
    at += snprintf(at, end - at, " thread (%u,%u,%u)", p.x, p.y, p.z);
  }
  at += snprintf(at, end - at, ": ");
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(at, end - at, format, arguments);
  va_end(arguments);
  if (!m.current) throw std::runtime_error(m.error);
  tsan::release(&m.at_end);
  yield();
  abort();  // the scheduler does not come back to a launch that failed
}

CUEMU_RAW inline int lane_id() { return machine().current->lane(); }

}  // namespace cuemu
