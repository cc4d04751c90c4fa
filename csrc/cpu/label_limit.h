// The classes that labels of a type can name.
#pragma once

#include <cstdint>
#include <limits>

#include "simd.h"

namespace fcnkern::FCNKERN_ISA {

// One more than the greatest of them: a label that is compared as unsigned and lies below is a class, as negative
// ones come after all that the type can name.
template <class Label>
FCNKERN_INLINE int64_t label_limit(int64_t classes) {
  constexpr uint64_t kMost = std::numeric_limits<Label>::max();
  const uint64_t wanted = static_cast<uint64_t>(classes);
  return static_cast<int64_t>(wanted <= kMost ? wanted : kMost + 1);
}

}  // namespace fcnkern::FCNKERN_ISA
