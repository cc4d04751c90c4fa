// Atomics and fences. One OS thread runs everything, so that they are plain reads and writes but for
// ThreadSanitizer: to it an atomic is a relaxed one, and it sees what was written before any earlier fence.
// So a result that one block leaves to another is ordered by a fence and then an atomic, as in CUDA, and not
// by either alone.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda_emu_machine.h"

inline void __threadfence() {
  cuemu::tsan::release(&cuemu::machine().at_fence);
  cuemu::tsan::acquire(&cuemu::machine().at_fence);
}
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }

namespace cuemu {

template <size_t size>
using Bits = std::conditional_t<size == 8, uint64_t, std::conditional_t<size == 4, uint32_t, uint16_t>>;

template <class To, class From>
CUEMU_RAW To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// Replaces *address by update(*address); returns what was there.
template <class T, class Update>
T read_modify_write(T* address, Update&& update) {
  using Word = Bits<sizeof(T)>;
  static_assert(sizeof(Word) == sizeof(T), "atomics are for 2, 4 and 8 bytes");
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T))
    fail("misaligned atomic at %p", static_cast<void*>(address));
  auto* word = reinterpret_cast<Word*>(address);
  Word old = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    const Word next = bit_cast<Word>(T(update(bit_cast<T>(old))));
    if (__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
  }
  tsan::acquire(&machine().at_fence);
  return bit_cast<T>(old);
}

}  // namespace cuemu

#define CUEMU_ATOMIC(NAME, RESULT)                                                        \
  template <class T>                                                                      \
  T NAME(T* address, std::common_type_t<T> value) {                                       \
    return cuemu::read_modify_write(address, [value](T old) { return T(RESULT); });       \
  }
CUEMU_ATOMIC(atomicAdd, old + value)
CUEMU_ATOMIC(atomicSub, old - value)
CUEMU_ATOMIC(atomicExch, (void(old), value))
CUEMU_ATOMIC(atomicMax, old < value ? value : old)
CUEMU_ATOMIC(atomicMin, value < old ? value : old)
CUEMU_ATOMIC(atomicOr, old | value)
CUEMU_ATOMIC(atomicAnd, old & value)
CUEMU_ATOMIC(atomicXor, old ^ value)
CUEMU_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
CUEMU_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef CUEMU_ATOMIC

template <class T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  return cuemu::read_modify_write(address, [=](T old) { return old == expected ? value : old; });
}
template <class T>
T atomicAdd_block(T* address, std::common_type_t<T> value) {
  return atomicAdd(address, value);
}
