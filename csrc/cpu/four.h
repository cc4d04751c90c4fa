// Vectors of four numbers, the sides of the squares in which blocks are transposed and lanes summed.
#pragma once

#include "simd.h"

namespace fcnkern::FCNKERN_ISA {

template <class T>
struct FourOf {
  typedef T Type __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// Elements i, j, k, l of the eight of a and b.
template <int i, int j, int k, int l, class V>
FCNKERN_INLINE V pick(V a, V b) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, i, j, k, l);
#else
  const auto at = [&](int n) { return n < 4 ? a[n] : b[n - 4]; };
  return V{at(i), at(j), at(k), at(l)};
#endif
}

// Makes the rows of a square its columns.
template <class Four>
FCNKERN_INLINE void transpose(Four (&square)[4]) {
  const Four low01 = pick<0, 4, 1, 5>(square[0], square[1]), high01 = pick<2, 6, 3, 7>(square[0], square[1]);
  const Four low23 = pick<0, 4, 1, 5>(square[2], square[3]), high23 = pick<2, 6, 3, 7>(square[2], square[3]);
  square[0] = pick<0, 1, 4, 5>(low01, low23);
  square[1] = pick<2, 3, 6, 7>(low01, low23);
  square[2] = pick<0, 1, 4, 5>(high01, high23);
  square[3] = pick<2, 3, 6, 7>(high01, high23);
}

// The sums of the lanes of a, b, c and d.
template <class T, class V>
FCNKERN_INLINE typename FourOf<T>::Type sum_lanes(V a, V b, V c, V d) {
  using Four = typename FourOf<T>::Type;
  if constexpr (sizeof(V) < sizeof(Four)) {
    return Four{a[0] + a[1], b[0] + b[1], c[0] + c[1], d[0] + d[1]};
  } else {
    const auto fold = [](V v) {
      Four parts[sizeof(V) / sizeof(Four)];
      std::memcpy(parts, &v, sizeof v);
      for (size_t i = 1; i < sizeof(V) / sizeof(Four); ++i) parts[0] += parts[i];
      return parts[0];
    };
    const auto pairs = [](Four v, Four w) { return pick<0, 2, 4, 6>(v, w) + pick<1, 3, 5, 7>(v, w); };
    return pairs(pairs(fold(a), fold(b)), pairs(fold(c), fold(d)));
  }
}

}  // namespace fcnkern::FCNKERN_ISA
