// LabelTiles from Python's arguments.
#pragma once

#include "bindings/arguments.h"
#include "cuda/label_tiles.h"

namespace fcnkern::cuda {

// Cells of an axis: (addresses of first, counts and start, step, parts, slots).
using CellTableArgs = std::tuple<std::array<uintptr_t, 3>, float, int, int>;

// (scores, (H, W), cells of the rows, of the columns, addresses of point_x and fraction_x, zero,
// skip_zero_weights, mode, wanted_tiles)
using LabelTilesArgs = std::tuple<ScoresArgs, std::array<int, 2>, CellTableArgs, CellTableArgs,
                                  std::array<uintptr_t, 2>, bool, bool, int, int>;

template <class T>
const T* table(uintptr_t address) {
  return reinterpret_cast<const T*>(address);
}

inline CellTable cell_table(const CellTableArgs& args) {
  const auto& [addresses, step, parts, slots] = args;
  return {table<int32_t>(addresses[0]),
          table<int32_t>(addresses[1]),
          table<float>(addresses[2]),
          step,
          parts,
          slots};
}

inline LabelTiles label_tiles(const LabelTilesArgs& args) {
  const auto& [given, size, rows, columns, taps, zero, skip_zero_weights, mode, wanted_tiles] = args;
  return {scores(given),
          size[0],
          size[1],
          cell_table(rows),
          cell_table(columns),
          table<int32_t>(taps[0]),
          table<float>(taps[1]),
          zero,
          skip_zero_weights,
          static_cast<TileMode>(mode),
          wanted_tiles};
}

}  // namespace fcnkern::cuda
