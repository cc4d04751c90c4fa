// Launches, and the memory of a block.
#pragma once

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_emu_scheduler.h"

namespace cuemu {

constexpr size_t kSharedWithoutAttribute = 48 << 10;

// Memory for the block that runs: of exactly this size, so that the sanitizers know its bounds and its life,
// and full of NaN (-1 in integers), so that a read of what was never written shows. Static and dynamic memory count
// together against the block's limit.
CUEMU_RAW inline void* block_alloc(size_t bytes) {
  const tsan::IgnoreWrites ignored;
  Machine& m = machine();
  void* memory = nullptr;
  m.shared_bytes += bytes;
  if (m.shared_bytes > m.shared_allowed) fail("%zu bytes of shared memory, %zu are allowed", m.shared_bytes, m.shared_allowed);
  if (m.shared_count == kMaxShared || posix_memalign(&memory, 128, bytes) != 0)
    fail("no room for another %zu bytes of shared memory", bytes);
  memset(memory, 0xFF, bytes);
  m.shared[m.shared_count++] = memory;
  return memory;
}

CUEMU_RAW inline void block_free() {
  const tsan::IgnoreWrites ignored;
  Machine& m = machine();
  while (m.shared_count) free(m.shared[--m.shared_count]);
  m.shared_bytes = 0;
}

CUEMU_RAW inline void* dyn_shared() { return machine().dynamic_shared; }

// The object that a FCNKERN_SHARED declares: one for each block. Its tag is the type of a lambda written
// there, so that each declaration has its own.
template <class T, class Tag>
CUEMU_RAW T& block_var(Tag) {
  static void* memory;
  static uint64_t block;
  if (block != machine().block) {
    memory = block_alloc(sizeof(T));
    block = machine().block;
  }
  return *static_cast<T*>(memory);
}

// Which block runs as the k-th.
struct BlockOrder {
  Order order;
  uint64_t count, factor = 1, offset = 0;

  CUEMU_RAW explicit BlockOrder(uint64_t blocks) : order(machine().config.order), count(blocks) {
    if (order != Order::kRandom) return;
    factor = random_below(1u << 30) | 1, offset = random_below(1u << 30);
    while (std::gcd(factor, count) != 1) factor += 2;  // then each block runs once
  }
  CUEMU_RAW uint64_t operator()(uint64_t k) const {
    return order == Order::kReverse ? count - 1 - k : (k * factor + offset) % count;
  }
};

// Gives the threads of a block their positions and, for ThreadSanitizer, fibers that the block before did not
// have.
CUEMU_RAW inline void start_block(uint64_t number, size_t shared) {
  Machine& m = machine();
  const dim3 g = gridDim, b = blockDim;
  blockIdx = uint3{unsigned(number % g.x), unsigned(number / g.x % g.y), unsigned(number / g.x / g.y)};
  m.set = static_cast<int>(++m.block % kFiberSets);
  m.dynamic_shared = shared ? block_alloc(shared) : nullptr;
  for (int i = 0; i < m.thread_count; ++i) {
    Thread& thread = m.threads[i];
    const unsigned index = i;
    thread.index = i;
    thread.state = State::kNew;
    thread.position = uint3{index % b.x, index / b.x % b.y, index / (b.x * b.y)};
    void*& fiber = m.fibers[m.set][i];
    if (!fiber) fiber = tsan::new_fiber();
    thread.fiber.tsan = fiber;
  }
}

// At the end of a launch, also one that failed: frees the block, and the stacks of the threads that did not
// end.
struct Cleanup {
  CUEMU_RAW ~Cleanup() {
    Machine& m = machine();
    block_free();
    m.current = nullptr;
    for (int i = 0; i < m.thread_count; ++i) {
      Thread& thread = m.threads[i];
      if (thread.state != State::kDone && thread.state != State::kNew) {
        asan::forget(thread.fiber.stack, kStackBytes);
        give_stack(thread.fiber.stack);
        tsan::become(thread.fiber.tsan);
        tsan::release(&m.at_end);
        tsan::become(m.scheduler.tsan);
      }
      thread.state = State::kDone;
    }
    tsan::acquire(&m.at_end);  // the kernel happens before all after the launch
  }
};

// The limits that a GPU checks.
CUEMU_RAW inline bool is_valid(dim3 g, dim3 b, size_t shared) {
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  const bool block = threads > 0 && threads <= kMaxThreads && b.z <= 64;
  const bool grid = g.x > 0 && g.y > 0 && g.z > 0 && g.x <= 0x7fffffffu && g.y <= 65535 && g.z <= 65535;
  return block && grid && shared <= machine().config.shared_limit;
}

CUEMU_RAW inline void run_grid(dim3 g, dim3 b, size_t shared, void (*body)(void*), void* arguments) {
  Machine& m = machine();
  if (m.current) fail("a kernel launches a kernel");
  const Cleanup cleanup;
  m.body = body, m.arguments = arguments;
  m.thread_count = static_cast<int>(b.x * b.y * b.z);
  m.error[0] = 0;
  m.random = m.config.seed * 0x9E3779B97F4A7C15ull + 1;
  m.scheduler.tsan = tsan::current_fiber();
  gridDim = g, blockDim = b;
  const uint64_t blocks = uint64_t(g.x) * g.y * g.z;
  const BlockOrder order(blocks);
  for (uint64_t k = 0; k < blocks; ++k) {
    start_block(order(k), shared);
    run_block();
    block_free();
  }
}

// Runs a kernel. The errors are those of a GPU; cudaGetErrorString says which thread failed and why.
template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A&&... values) {
  if (!is_valid(grid, block, shared)) return cudaErrorInvalidConfiguration;
  size_t allowed = kSharedWithoutAttribute;
  machine().shared_allowed = kSharedWithoutAttribute;
  for (const auto& attribute : machine().attributes) {
    if (attribute.kernel != reinterpret_cast<const void*>(kernel)) continue;
    allowed = attribute.shared_limit;
    machine().shared_allowed = machine().config.shared_limit;
  }
  if (shared > allowed) return cudaErrorInvalidValue;
  std::tuple<void (*)(P...), std::decay_t<P>...> call(kernel, static_cast<P>(std::forward<A>(values))...);
  const auto body = [](void* memory) {
    const auto run = [](auto function, auto&... copies) { function(copies...); };
    std::apply(run, *static_cast<decltype(call)*>(memory));
  };
  try {
    run_grid(grid, block, shared, body, &call);
  } catch (const std::runtime_error&) {
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

// For the tests: adds the names of the kernels that are launched to the file that CUEMU_LAUNCHES names, each
// once.
inline void note_launch(const char* name) {
  static const char* const path = getenv("CUEMU_LAUNCHES");
  static const char* noted[kMaxAttributes] = {};
  if (!path) return;
  for (const char*& known : noted) {
    if (known && strcmp(known, name) == 0) return;
    if (known) continue;
    known = name;
    if (FILE* file = fopen(path, "a")) {
      fprintf(file, "%s\n", name);
      fclose(file);
    }
    return;
  }
}

}  // namespace cuemu
