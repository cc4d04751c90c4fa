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

// Memory to bring into the second-level cache while a panel is multiplied: for each k so many lines line_step bytes
// apart, k_stride bytes further.
struct Ahead {
  const char* at;
  int64_t k_stride, line_step, lines;
};
constexpr Ahead kNothingAhead = {nullptr, 0, 0, 0};

// What to fetch of `count` columns whose elements of `size` bytes lie k_stride and column_stride bytes apart. With
// columns side by side a line holds several of them for one k. With the k side by side the first line of a
// column's panel is fetched (the hardware follows), and the steps of k count columns.
FCNKERN_INLINE Ahead block_ahead(const char* at, int64_t k_stride, int64_t column_stride, int count, int64_t size) {
  constexpr int64_t kLine = 64;
  if (column_stride > 0 && column_stride <= 4 * size) return {at, k_stride, kLine, count * column_stride / kLine + 1};
  if (k_stride == size && column_stride > 0) return {at, column_stride, 0, 1};
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

// Columns of b to multiply at a time, and where they lie, [k * stride + column]; at nullptr: not as they must, so that
// they are packed.
template <class T>
struct ColumnBlock {
  int count;
  const T* at;
  int64_t stride;
};

// For multiply_tile where none lie so.
template <class T>
struct PackAll {
  ColumnBlock<T> operator()(int64_t, int64_t, int64_t left) const {
    return {static_cast<int>(least(kPackColumns, left)), nullptr, 0};
  }
};

// acc += a b for one tile of `rows` <= kMostRows and `columns`; acc_stride >= columns rounded up to
// kRegister<T>. load_a(k, depth, m, width, target) packs [k][m] with row stride `width`. where(k, column, left) cuts
// off the next of the `left` columns from `column` on, whole registers but for the last ones;
// load_b(k, depth, column, count, target) packs [k][n] with row stride kPackColumns; ahead(k, column, count) says
// where the columns after those at hand lie.
template <class T, class LoadA, class LoadB, class Where, class AheadB>
void multiply_tile(int rows, int64_t columns, int64_t k_begin, int64_t k_end, LoadA load_a, LoadB load_b,
                   Where where, AheadB ahead, T* acc, int64_t acc_stride, T* a, T* b) {
  for (int64_t k = k_begin; k < k_end; k += kDepth) {
    const int depth = static_cast<int>(least(kDepth, k_end - k));
    pack_panels(rows, depth, a, [&](int m, int width, T* target) { load_a(k, depth, m, width, target); });
    ColumnBlock<T> block = where(k, int64_t{0}, columns);
    for (int64_t column = 0; column < columns;) {
      const int64_t following = column + block.count;
      const bool last = following == columns, more = !last || k + kDepth < k_end;
      const int64_t next_k = last ? k + kDepth : k, next_column = last ? 0 : following;
      const ColumnBlock<T> next =
          more ? where(next_k, next_column, columns - next_column) : ColumnBlock<T>{0, nullptr, 0};
      const int registers = static_cast<int>(ceil_div(block.count, kRegister<T>));
      if (block.at == nullptr) {
        load_b(k, depth, column, block.count, b);
        clear_columns(b, kPackColumns, depth, block.count, registers * kRegister<T>);
        block = {block.count, b, kPackColumns};
      }
      multiply_panel<T>(rows, registers, depth, a, block.at, block.stride, acc + column, acc_stride,
                        more ? ahead(next_k, next_column, next.count) : kNothingAhead);
      block = next;
      column = following;
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
