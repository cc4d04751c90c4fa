// Fibers: stacks, and the switch from one to another. In assembly on x86-64 (21 ns), by ucontext elsewhere
// (320 ns, for its system calls) and with -DCUEMU_UCONTEXT.
#pragma once

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "cuda_emu_sanitizers.h"

#if !defined(__x86_64__) && !defined(CUEMU_UCONTEXT)
#define CUEMU_UCONTEXT 1
#endif

#ifdef CUEMU_UCONTEXT
#include <ucontext.h>
#else
// Keeps the callee-saved registers on the stack that is left and its address in *save, takes those of the
// other.
extern "C" void cuemu_switch(void** save, void* to);
asm(R"(
.text
.weak cuemu_switch
.hidden cuemu_switch
.type cuemu_switch,@function
cuemu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi); movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size cuemu_switch,.-cuemu_switch
)");
#endif

namespace cuemu {

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kGuardBytes = 4096;

struct Fiber {
#ifdef CUEMU_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  char* stack = nullptr;  // its lowest address
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // of AddressSanitizer
  void* tsan = nullptr;        // of ThreadSanitizer
};

// A stack with a page below that nobody may touch.
CUEMU_RAW inline char* new_stack() {
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, kStackBytes + kGuardBytes, protection, flags, -1, 0);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "cuda_emu: no memory for the stacks of the threads\n");
    abort();
  }
  mprotect(memory, kGuardBytes, PROT_NONE);
  return static_cast<char*>(memory) + kGuardBytes;
}

// Makes a fiber ready to enter a function on `stack`, which it has for itself until it ends.
CUEMU_RAW inline void prepare(Fiber& fiber, char* stack, void (*function)()) {
  fiber.stack = stack;
  fiber.stack_bytes = kStackBytes;
#ifdef CUEMU_UCONTEXT
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, function, 0);
#else
  // What cuemu_switch pops. A function is entered with %rsp = 8 mod 16, as after a call; else SSE code would
  // fault.
  void** top = reinterpret_cast<void**>(stack + kStackBytes) - 1;
  *top = nullptr;  // no caller to return to
  *--top = reinterpret_cast<void*>(function);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
#endif
}

// Leaves one fiber, which goes on from here when another jumps to it, for another. `ends`: it never goes on.
CUEMU_RAW inline void jump(Fiber& from, Fiber& to, bool ends = false) {
  asan::leave(ends ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
  tsan::become(to.tsan);
#ifdef CUEMU_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  cuemu_switch(&from.stack_pointer, to.stack_pointer);
#endif
  asan::arrive(from.fake_stack, nullptr, nullptr);
}

}  // namespace cuemu
