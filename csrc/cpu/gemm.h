// Matrix products of packed panels in a fixed summation order.
//
// acc[m][n] += sum over k of a(k, m) * b(k, n) is formed panel by panel of kDepth values of k, each panel
// summed from zero in the order of k, then added. So an element's bits depend on the problem alone: not on
// the threads, the tiles or the lanes that computed it.
#pragma once

#include <cstdint>

#include "blocks.h"
#include "threads.h"
#include "scratch.h"

namespace fcnkern::FCNKERN_ISA {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#else
#if defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
#endif

constexpr int kDepth = 128;       // k per panel: an accumulator is read and written once for so many
constexpr int kPackColumns = 48;  // columns of b packed at a time, a multiple of every kStrip
constexpr int kMostRows = 512;    // rows of an accumulator tile

template <class T>
struct RegisterOf {
  typedef T Type __attribute__((vector_size(kRegisterBytes)));
  typedef T Unaligned __attribute__((vector_size(kRegisterBytes), aligned(sizeof(T)), may_alias));
};

template <class T>
constexpr int kRegister = kRegisterBytes / static_cast<int>(sizeof(T));  // lanes of a register
template <class T>
constexpr int kStrip = kRegister<T> * kTileVectors;

FCNKERN_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
FCNKERN_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
FCNKERN_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FCNKERN_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Rows of every panel of `a` but the last.
FCNKERN_INLINE int panel_rows(int rows) {
  const int panels = (rows + kTileRows - 1) / kTileRows;
  return (rows + panels - 1) / panels;
}

// Memory to bring into the second-level cache while a panel is multiplied. Steps of k and of columns of b
// move by k_stride and column_stride bytes; for each k, lines line_step bytes apart are fetched until the
// next strip's.
struct Ahead {
  const char* at;
  int64_t k_stride, column_stride, line_step;
};
constexpr Ahead kNothingAhead = {nullptr, 0, 0, 1};

// What to fetch of a block whose elements of `size` bytes lie k_stride and column_stride bytes apart. With
// columns side by side a line holds several of them for one k. With the k side by side the first line of a
// column's panel is fetched (the hardware follows), and the steps of k count columns.
FCNKERN_INLINE Ahead block_ahead(const char* at, int64_t k_stride, int64_t column_stride, int64_t size) {
  if (column_stride > 0 && column_stride <= 4 * size) return {at, k_stride, column_stride, 64};
  if (k_stride == size && column_stride > 0)
    return {at, column_stride, column_stride, column_stride * kDepth};
  return kNothingAhead;
}

// acc[m][n] += sum over k < depth of a(k, m) * b(k, n), m < rows, n < registers * kRegister<T>.
// `a` holds panels of panel_rows(rows) rows, each stored [k][m]; b is stored [k][n] with `b_stride` per k.
template <class T>
void multiply_panel(int rows, int registers, int depth, const T* a, const T* b, int64_t b_stride, T* acc,
                    int64_t acc_stride, Ahead ahead = kNothingAhead);

// Packs `depth` x `rows` of a: load(m0, width, target) fills [k][m] panels of `width` rows.
template <class T, class Load>
FCNKERN_INLINE void pack_panels(int rows, int depth, T* a, Load load) {
  const int width = panel_rows(rows);
  for (int m = 0; m < rows; m += width) {
    load(m, static_cast<int>(least(width, rows - m)), a + static_cast<int64_t>(m) * depth);
  }
}

// The block of b that is packed next.
struct NextBlock {
  int64_t k, column;
  int count;  // of columns; 0: there is none
};

// acc += a b for one tile of `rows` <= kMostRows and `columns`; acc_stride >= columns rounded up to
// kRegister<T>. load_a(k, depth, m, width, target) packs [k][m] with row stride `width`; load_b(k, depth,
// column, count, target, next) packs [k][n] with row stride kPackColumns and says where `next` lies.
template <class T, class LoadA, class LoadB>
void multiply_tile(int rows, int64_t columns, int64_t k_begin, int64_t k_end, LoadA load_a, LoadB load_b,
                   T* acc, int64_t acc_stride, T* a, T* b) {
  for (int64_t k = k_begin; k < k_end; k += kDepth) {
    const int depth = static_cast<int>(least(kDepth, k_end - k));
    pack_panels(rows, depth, a, [&](int m, int width, T* target) { load_a(k, depth, m, width, target); });
    for (int64_t column = 0; column < columns; column += kPackColumns) {
      const int count = static_cast<int>(least(kPackColumns, columns - column));
      const bool last = column + kPackColumns >= columns;
      const int64_t next_column = last ? 0 : column + kPackColumns;
      const bool more = !last || k + kDepth < k_end;
      const Ahead ahead =
          load_b(k, depth, column, count, b,
                 NextBlock{last ? k + kDepth : k, next_column,
                           more ? static_cast<int>(least(kPackColumns, columns - next_column)) : 0});
      const int registers = static_cast<int>(ceil_div(count, kRegister<T>));
      clear_columns(b, kPackColumns, depth, count, registers * kRegister<T>);
      multiply_panel<T>(rows, registers, depth, a, b, kPackColumns, acc + column, acc_stride, ahead);
    }
  }
}

// How an M x N result is cut into tiles. Each accumulator has at most about kTileElements elements.
struct Tiling {
  static constexpr int64_t kTileElements = int64_t{1} << 17;
  int64_t rows, columns;  // of a tile
  int64_t row_tiles, column_tiles;

  Tiling(int64_t m, int64_t n, int threads, int64_t column_multiple, int64_t most_columns = kTileElements) {
    row_tiles = most(1, ceil_div(m, kMostRows));
    rows = most(1, ceil_div(m, row_tiles));
    const int64_t fitting = most(1, least(most_columns, kTileElements / rows));
    const int64_t wanted = most(ceil_div(n, fitting), ceil_div(threads, row_tiles));
    columns = round_up(most(1, ceil_div(n, wanted)), column_multiple);
    column_tiles = most(1, ceil_div(n, columns));
  }
  int64_t count() const { return row_tiles * column_tiles; }
  int64_t stride() const { return round_up(columns, 16); }
};

// Threads worth starting for so many multiply-adds.
FCNKERN_INLINE int worth_threads(int threads, int64_t operations) {
  constexpr int64_t kPerThread = 200000;
  return static_cast<int>(most(1, least(threads, operations / kPerThread)));
}

}  // namespace fcnkern::FCNKERN_ISA
