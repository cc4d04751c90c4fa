// A tile of a label map, found from low-resolution scores by one block: some rows of parts of cells, 256
// columns.
#pragma once

#include <algorithm>

#include "label_points.cuh"

namespace fcnkern::cuda {

constexpr int kTileThreads = 256;
constexpr int kTileColumns = kTileThreads;  // a thread to a column
constexpr int kTileParts = 8;               // rows of parts at most

// In the place of a cell's label: its corners do not decide it.
constexpr int kUndecidedPlain = -1, kUndecidedExact = -2;

// In the place of an output's label: its cell is not decided, or it is not there.
constexpr unsigned kNoLabel = 0xfffe;

// How much of everything a tile can have, and where in shared memory (bytes) it lies.
struct TileShape {
  int parts;  // rows of parts
  int split;  // each_point's
  int lane_bits, x_bits,
      y_bits;          // binary logarithms of the lanes of a part of a cell, and of its cell's parts
  int row_bits;        // binary logarithm of the rows of a part, rounded up
  unsigned part_rows;  // of an image
  unsigned bands, strips, tiles;
  unsigned list, codes, cells, bounds, bytes;  // the row patterns come first
};

inline int bits_of(int number) {
  int bits = 0;
  while (1 << bits < number) ++bits;
  return bits;
}

inline TileShape tile_shape(const LabelTiles& plan) {
  TileShape shape{};
  shape.part_rows = static_cast<unsigned>((plan.scores.h + 1) * plan.y.parts);
  shape.strips = ceil_div<unsigned>(plan.width, kTileColumns);
  // Few rows of parts read more points twice, many leave too few tiles.
  for (shape.parts = kTileParts;; shape.parts /= 2) {
    shape.bands = static_cast<unsigned>(plan.scores.n) * ceil_div<unsigned>(shape.part_rows, shape.parts);
    shape.tiles = shape.bands * shape.strips;
    if (shape.parts <= std::max(2, std::min(plan.y.parts, kTileParts))) break;
    if (shape.tiles >= static_cast<unsigned>(plan.wanted_tiles)) break;
  }
  shape.split = split_of_points(plan.scores);
  shape.lane_bits = bits_of(plan.x.slots), shape.x_bits = bits_of(plan.x.parts),
  shape.y_bits = bits_of(plan.y.parts), shape.row_bits = bits_of(plan.y.slots);
  const unsigned cells_y = (shape.parts + plan.y.parts - 2) / plan.y.parts + 1;
  const unsigned cells_x = static_cast<unsigned>(kTileColumns * plan.x.step) + 3;
  shape.list = shape.parts * kTileColumns * sizeof(uint16_t);
  shape.codes = shape.list + ceil_div(cells_y * cells_x, 2u) * 2 * sizeof(uint16_t);
  shape.cells = shape.codes + (cells_y + 1) * (cells_x + 1) * sizeof(unsigned);
  shape.bounds = shape.cells + cells_y * cells_x * sizeof(int);
  const unsigned end = shape.bounds + cells_y * cells_x * sizeof(float);
  shape.bytes = plan.mode == TileMode::kDecide ? end : plan.mode == TileMode::kIdentity ? shape.list : 0;
  return shape;
}

// What the block knows of its tile, in shared memory.
struct TileTable {
  int image, first_part, parts, x0, columns;
  int listed;  // entries of the list
  int y[kTileParts], count[kTileParts], cell[kTileParts];
  float start[kTileParts];
  Rectangle cells, points;  // with kDecide
};

template <class T>
struct Tile {
  const LabelTiles& plan;
  const TileShape& shape;
  TileTable& table;
  uint16_t* patterns;  // labels of a part's columns, the same in all its rows; kNoLabel where not decided
  uint16_t* list;      // cells that are not decided
  unsigned* codes;
  int* cells;     // label, or one of the marks
  float* bounds;  // a score that some class has in the whole of an undecided cell

  __device__ __forceinline__ Tile(const LabelTiles& plan, const TileShape& shape, TileTable& table,
                                  unsigned char* memory)
      : plan(plan),
        shape(shape),
        table(table),
        patterns(reinterpret_cast<uint16_t*>(memory)),
        list(reinterpret_cast<uint16_t*>(memory + shape.list)),
        codes(reinterpret_cast<unsigned*>(memory + shape.codes)),
        cells(reinterpret_cast<int*>(memory + shape.cells)),
        bounds(reinterpret_cast<float*>(memory + shape.bounds)) {}

  __device__ __forceinline__ int h() const { return static_cast<int>(plan.scores.h); }
  __device__ __forceinline__ int w() const { return static_cast<int>(plan.scores.w); }
  __device__ __forceinline__ int classes() const { return static_cast<int>(plan.scores.c); }

  // Goes to a tile; the first barrier ends all use of the tile before.
  __device__ __forceinline__ void go_to(unsigned tile) {
    __syncthreads();
    if (threadIdx.x == 0) {
      const unsigned band = tile / shape.strips, bands = shape.bands / static_cast<unsigned>(plan.scores.n);
      table.image = static_cast<int>(band / bands);
      table.first_part = static_cast<int>(band % bands) * shape.parts;
      table.parts = min(shape.parts, static_cast<int>(shape.part_rows) - table.first_part);
      table.x0 = static_cast<int>(tile % shape.strips) * kTileColumns;
      table.columns = min(kTileColumns, plan.width - table.x0);
      table.listed = 0;
      if (plan.mode == TileMode::kDecide) find_areas();
    }
    __syncthreads();
    const int part = threadIdx.x;
    if (part < table.parts) {
      const int row = table.first_part + part;
      table.y[part] = plan.y.first[row], table.count[part] = plan.y.counts[row];
      table.cell[part] = row / plan.y.parts, table.start[part] = plan.y.start[row];
    }
  }

  // Finds the labels that need no more than the argmax of points, in `patterns`. Whether there can be any.
  __device__ __forceinline__ bool find_patterns() {
    if (plan.mode == TileMode::kAll) {
      __syncthreads();
      return false;
    }
    const bool identity = plan.mode == TileMode::kIdentity;
    // Row k of parts is row k - 1 of points where outputs are points.
    const int begin = max(table.first_part - 1, 0), end = table.first_part + table.parts - 1;
    Rectangle area = table.points;
    if (identity) area = Rectangle::of(begin, table.x0, end - begin, table.columns);
    each_point<T>(plan.scores, table.image, area, shape.split, [&](int y, int x, const PointMaximum& found) {
      if (identity)
        patterns[(y + 1 - table.first_part) * kTileColumns + x - area.x] = static_cast<uint16_t>(found.label);
      else codes[area.index(y, x)] = found.code(plan.skip_zero_weights);
    });
    if (!identity) {
      __syncthreads();
      decide_cells();
      __syncthreads();
      fill_patterns();
    }
    __syncthreads();
    return true;
  }

  // Calls `put(y, x, count, labels)` for the columns of outputs that `patterns` leaves out: `count` rows from
  // (y, x) on, none where a lane has no column. Per class that can win: four loads, eight operations, then
  // four an output.
  template <class Put>
  __device__ __forceinline__ void each_undecided(Put&& put) const {
    const bool decides = plan.mode == TileMode::kDecide;
    const int bits = shape.lane_bits + shape.x_bits + shape.y_bits, lanes = 1 << shape.lane_bits;
    const int listed = decides ? table.listed << bits : 0, lane = threadIdx.x % kWarp;
    const int number = plan.mode == TileMode::kAll ? table.parts * kTileColumns : listed;
#pragma unroll 1
    for (int first = threadIdx.x - lane; first < number; first += kTileThreads) {
      const int unit = first + lane, i = decides ? list[min(unit >> bits, table.listed - 1)] : 0;
      const Place at = decides ? listed_place(unit, i) : column_place(unit);
      if (!decides && table.count[at.part] == 0) continue;
      const bool inside = unit < number && at.inside && at.x >= table.x0 && at.x < table.x0 + table.columns;
      const Column<T> column = column_at<T>(plan, table.image, at.cell, table.start[at.part], at.fraction);
      Winners winners;
      if (decides && cells[i] == kUndecidedPlain)
        plain_winners(column, bounds[i], classes(), plan.y.slots, aligned_peers(lanes), winners);
      else exact_winners(column, classes(), plan.y.slots, plan.skip_zero_weights, winners);
      put(table.y[at.part], at.x, inside ? table.count[at.part] : 0, winners.label);
    }
  }

 private:
  __device__ __forceinline__ int cell_of_column(int x) const { return cell_of_point(plan.point_x[x], w()); }

  __device__ __forceinline__ void find_areas() const {
    const int top = table.first_part / plan.y.parts;
    const int bottom = (table.first_part + table.parts - 1) / plan.y.parts;
    const int left = cell_of_column(table.x0), right = cell_of_column(table.x0 + table.columns - 1);
    const int y = cell_points(top, h(), plan.zero).before, x = cell_points(left, w(), plan.zero).before;
    table.cells = Rectangle::of(top, left, bottom - top + 1, right - left + 1);
    table.points = Rectangle::of(y, x, cell_points(bottom, h(), plan.zero).after - y + 1,
                                 cell_points(right, w(), plan.zero).after - x + 1);
  }

  // Decides the cells that their corners decide, and lists the others. The order of the list depends on
  // scheduling, the labels do not.
  __device__ __forceinline__ void decide_cells() const {
    const int number = table.cells.rows * table.cells.columns, lane = threadIdx.x % kWarp;
#pragma unroll 1
    for (int first = threadIdx.x - lane; first < number; first += kTileThreads) {
      const int i = first + lane;
      const int state = i < number ? decide(i) : 0;
      const unsigned undecided = __ballot_sync(kAllLanes, state < 0);
      int place = 0;
      if (lane == 0 && undecided != 0) place = atomicAdd(&table.listed, __popc(undecided));
      place = __shfl_sync(kAllLanes, place, 0) + __popc(undecided & ((1u << lane) - 1));
      if (state < 0) list[place] = static_cast<uint16_t>(i);
    }
  }

  // The label of a cell, or a mark and a bound for its classes.
  __device__ __forceinline__ int decide(int i) const {
    const CellPlace cell = table.cells.place(i);
    const Points rows = cell_points(cell.y, h(), plan.zero), across = cell_points(cell.x, w(), plan.zero);
    const unsigned* upper = codes + table.points.index(rows.before, 0);
    const unsigned* lower = codes + table.points.index(rows.after, 0);
    const unsigned code[4] = {upper[across.before], upper[across.after], lower[across.before],
                              lower[across.after]};
    const unsigned any = code[0] | code[1] | code[2] | code[3];
    const bool same = code[0] == code[1] && code[0] == code[2] && code[0] == code[3];
    int state = static_cast<int>(code[0] & kLabelOfCode);
    if (!same || code[0] >= kUndecidable) {
      state = (any & kNotPlain) == 0 ? kUndecidedPlain : kUndecidedExact;
      if (state == kUndecidedPlain) bounds[i] = bound_of(cell, code);
    }
    cells[i] = state;
    return state;
  }

  // The largest of the least corner scores of the classes that win a corner.
  __device__ __forceinline__ float bound_of(CellPlace cell, const unsigned (&code)[4]) const {
    const Column<T> column = column_at<T>(plan, table.image, cell, 0.0f, 0.0f);
    float bound = kNegativeInfinity;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float4 s = column.corners(code[k]);
      bound = fmaxf(bound, fminf(fminf(s.x, s.y), fminf(s.z, s.w)));
    }
    return bound;
  }

  __device__ __forceinline__ void fill_patterns() const {
    const int x = threadIdx.x;
    if (x >= table.columns) return;
    const int cell_x = cell_of_column(table.x0 + x) - table.cells.x;
#pragma unroll 1
    for (int part = 0; part < table.parts; ++part) {
      const int state = cells[(table.cell[part] - table.cells.y) * table.cells.columns + cell_x];
      patterns[part * kTileColumns + x] = static_cast<uint16_t>(state < 0 ? kNoLabel : state);
    }
  }

  // A column of outputs.
  struct Place {
    int part, x;
    CellPlace cell;
    float fraction;
    bool inside;
  };

  // Column `unit` of the listed cell i: a lane to a column, a power of two of lanes to a part of a cell.
  __device__ __forceinline__ Place listed_place(int unit, int i) const {
    const int slot = unit & ((1 << shape.lane_bits) - 1);
    const CellPlace cell = table.cells.place(i);
    const int below = unit >> (shape.lane_bits + shape.x_bits) & (plan.y.parts - 1);
    const int part = (cell.y << shape.y_bits) + below - table.first_part;
    const int part_x = (cell.x << shape.x_bits) + (unit >> shape.lane_bits & (plan.x.parts - 1));
    const bool inside = slot < plan.x.counts[part_x] && part >= 0 && part < table.parts;
    return {min(max(part, 0), table.parts - 1), plan.x.first[part_x] + slot, cell,
            plan.x.start[part_x] + slot * plan.x.step, inside};
  }

  __device__ __forceinline__ Place column_place(int unit) const {
    const int part = unit / kTileColumns, x = min(table.x0 + unit % kTileColumns, plan.width - 1);
    const bool inside = table.x0 + unit % kTileColumns < plan.width;
    return {part, x, {table.cell[part], cell_of_column(x)}, plan.fraction_x[x], inside};
  }
};

}  // namespace fcnkern::cuda
