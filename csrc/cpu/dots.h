// Products of rows with rows, for sums over elements that lie side by side in both, in a fixed order.
//
// acc[m][n] += sum over k of a(m, k) * b(n, k) is formed panel by panel of kDotLength values of k, the lanes of
// a panel each from zero in the order of k, then added up and to acc. So an element's bits depend on the
// problem and the width of a register alone. gemm.h wants the columns side by side instead.
#pragma once

#include "four.h"
#include "gemm.h"

namespace fcnkern::FCNKERN_ISA {

#if defined(__AVX512F__)
constexpr int kDotRows = 6;
#else
constexpr int kDotRows = 3;
#endif
constexpr int kDotColumns = 4;
// k per panel: long enough for few changes of page from row to row, and kDotColumns of them stay in the
// first-level cache.
constexpr int kDotLength = 512;

// Columns of b to bring into the first-level cache while a panel is multiplied, line by line: `count` of them,
// column_stride bytes apart, with k_stride bytes to a register.
struct ColumnsAhead {
  const char* at;
  int64_t k_stride, column_stride;
  int count;

  void fetch(int64_t step) const {
    for (int i = 0; i < count; ++i) __builtin_prefetch(at + step * k_stride + i * column_stride);
  }
};

// Columns of b: [n * stride + k].
template <class T>
struct DotColumns {
  const T* at;
  int64_t stride;
};

// acc[m][n] += sum over k < length of a[m][k] * b[n][k] for kRows rows and kDotColumns columns; `length` is a
// multiple of kRegister<T>. A step reads kRows + kDotColumns registers for kRows * kDotColumns multiply-adds.
template <class T, int kRows>
void add_dots(int length, const T* __restrict a, DotColumns<T> b, T* __restrict acc, int64_t acc_stride,
              ColumnsAhead ahead) {
  using V = typename RegisterOf<T>::Type;
  using U = typename RegisterOf<T>::Unaligned;
  V sum[kRows][kDotColumns];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 16
    for (int n = 0; n < kDotColumns; ++n) sum[m][n] = V{};
  for (int k = 0; k < length; k += kRegister<T>) {
    ahead.fetch(k / kRegister<T>);
    V row[kRows];
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) row[m] = *reinterpret_cast<const U*>(a + m * kDotLength + k);
#pragma GCC unroll 16
    for (int n = 0; n < kDotColumns; ++n) {
      const V column = *reinterpret_cast<const U*>(b.at + n * b.stride + k);
#pragma GCC unroll 16
      for (int m = 0; m < kRows; ++m) sum[m][n] += row[m] * column;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
    *reinterpret_cast<typename FourOf<T>::Type*>(acc + m * acc_stride) +=
        sum_lanes<T>(sum[m][0], sum[m][1], sum[m][2], sum[m][3]);
}

template <class T>
void add_dots(int rows, int length, const T* a, DotColumns<T> b, T* acc, int64_t acc_stride,
              ColumnsAhead ahead) {
  switch (rows) {
#define FCNKERN_ROWS(N) \
  case N:               \
    return add_dots<T, N>(length, a, b, acc, acc_stride, ahead);
    FCNKERN_ROWS(1)
    FCNKERN_ROWS(2)
    FCNKERN_ROWS(3)
#if defined(__AVX512F__)
    FCNKERN_ROWS(4)
    FCNKERN_ROWS(5)
    FCNKERN_ROWS(6)
#endif
#undef FCNKERN_ROWS
  }
}

// acc += a b^T for one tile; acc_stride >= columns rounded up to kDotColumns. load_a(k, length, target) packs
// all rows of a panel, load_b(k, length, column, count, target) `count` columns, with kDotLength from one to
// the next; where(k, length, column) says where kDotColumns of them lie ready, at nullptr if they do not;
// ahead(k, length, column) what to fetch. `a` holds rows * kDotLength numbers, `b` kDotColumns * kDotLength.
template <class T, class LoadA, class LoadB, class WhereB, class AheadB>
void multiply_by_dots(int rows, int64_t columns, int64_t k_begin, int64_t k_end, LoadA load_a, LoadB load_b,
                      WhereB where, AheadB ahead, T* acc, int64_t acc_stride, T* a, T* b) {
  for (int64_t k = k_begin; k < k_end; k += kDotLength) {
    const int length = static_cast<int>(least(kDotLength, k_end - k));
    const int padded = static_cast<int>(round_up(length, kRegister<T>));
    load_a(k, length, a);
    clear_columns(a, kDotLength, rows, length, padded);
    for (int64_t column = 0; column < columns; column += kDotColumns) {
      const int count = static_cast<int>(least(kDotColumns, columns - column));
      DotColumns<T> ready{nullptr, kDotLength};
      if (count == kDotColumns && length == padded) ready = where(k, length, column);
      if (ready.at == nullptr) {
        load_b(k, length, column, count, b);
        clear_columns(b, kDotLength, count, length, padded);
        clear_columns(b + count * kDotLength, kDotLength, kDotColumns - count, 0, padded);
        ready = {b, kDotLength};
      }
      const bool last = column + kDotColumns >= columns;
      ColumnsAhead next = last ? ahead(k + length, length, int64_t{0}) : ahead(k, length, column + kDotColumns);
      for (int m = 0, left = kDotColumns; m < rows; m += kDotRows) {
        next.count = static_cast<int>(ceil_div(left, ceil_div(rows - m, kDotRows)));
        add_dots(static_cast<int>(least(kDotRows, rows - m)), padded, a + m * kDotLength, ready,
                 acc + m * acc_stride + column, acc_stride, next);
        next.at += next.count * next.column_stride;
        left -= next.count;
      }
    }
  }
}

}  // namespace fcnkern::FCNKERN_ISA
