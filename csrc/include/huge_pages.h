// Memory in pages of 2 MiB, where the system gives them to those who ask ("madvise" in Linux's
// /sys/kernel/mm/transparent_hugepage/enabled).
#pragma once

#include <cstddef>
#include <cstdint>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fcnkern {

// Asks for them between `address` and `address + bytes`. Advice: where there are none, and of memory that is in use
// already, nothing changes.
inline void advise_huge_pages(uintptr_t address, size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const uintptr_t first = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#else
  static_cast<void>(address), static_cast<void>(bytes);
#endif
}

}  // namespace fcnkern
