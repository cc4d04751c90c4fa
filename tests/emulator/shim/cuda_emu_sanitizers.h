// What AddressSanitizer and ThreadSanitizer are told of fibers and of order. Without -fsanitize all of it is
// empty.
#pragma once

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUEMU_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define CUEMU_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define CUEMU_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define CUEMU_TSAN 1
#endif

#ifdef CUEMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CUEMU_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif

// For the emulator's own code, which is not checked: an access of the scheduler is not one of the kernel. A
// function that changes fibers must have it, or ThreadSanitizer's shadow of the call stack would be of
// another fiber.
#define CUEMU_RAW __attribute__((no_sanitize_address, no_sanitize_thread))

namespace cuemu::asan {
#ifdef CUEMU_ASAN
// Before the stack is changed; `fake` keeps the leaving fiber's own, null where it ends.
CUEMU_RAW inline void leave(void** fake, const void* stack, size_t size) {
  __sanitizer_start_switch_fiber(fake, stack, size);
}
// After it; tells the stack that was left.
CUEMU_RAW inline void arrive(void* fake, const void** stack, size_t* size) {
  __sanitizer_finish_switch_fiber(fake, stack, size);
}
CUEMU_RAW inline void forget(void* memory, size_t size) { __asan_unpoison_memory_region(memory, size); }
#else
inline void leave(void**, const void*, size_t) {}
inline void arrive(void*, const void**, size_t*) {}
inline void forget(void*, size_t) {}
#endif
}  // namespace cuemu::asan

namespace cuemu::tsan {
#ifdef CUEMU_TSAN
constexpr bool kOn = true;
CUEMU_RAW inline void* new_fiber() { return __tsan_create_fiber(0); }
CUEMU_RAW inline void* current_fiber() { return __tsan_get_current_fiber(); }
// The sanitizer takes what follows for the code of a fiber; that alone orders nothing.
CUEMU_RAW inline void become(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
// What came before a release of a token happens before what comes after a later acquire.
CUEMU_RAW inline void release(void* token) { __tsan_release(token); }
CUEMU_RAW inline void acquire(void* token) { __tsan_acquire(token); }
// While it lives, writes are nobody's.
struct IgnoreWrites {
  CUEMU_RAW IgnoreWrites() { AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
  CUEMU_RAW ~IgnoreWrites() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__); }
};
#else
constexpr bool kOn = false;
inline void* new_fiber() { return nullptr; }
inline void* current_fiber() { return nullptr; }
inline void become(void*) {}
inline void release(void*) {}
inline void acquire(void*) {}
struct IgnoreWrites {
  IgnoreWrites() {}
  ~IgnoreWrites() {}
};
#endif
}  // namespace cuemu::tsan
