// Scores that become a label map tile by tile: what upsample_argmax and confusion_matrix tell their kernels.
#pragma once

#include <cstdint>

#include "upsampling.h"

namespace fcnkern::cuda {

// How the labels of a tile are found.
enum class TileMode : int {
  kIdentity = 0,  // outputs are source points
  kDecide = 1,    // cells by the argmax of their corners where that is enough
  kAll = 2,       // every output from all classes
};

// Cells of an axis, each in `parts` parts of at most `slots` outputs; the fields and the tables (of device
// memory) of fcnkern/backends/_axes.py.
struct CellTable {
  const int32_t *first, *counts;
  const float* start;
  float step;
  int parts, slots;
};

struct LabelTiles {
  Scores scores;
  int height, width;  // of the label map
  CellTable y, x;
  const int32_t* point_x;   // point before each column of outputs
  const float* fraction_x;  // fraction of each column between that point and the next
  bool zero;                // points outside the source are 0
  bool skip_zero_weights;   // a tap of weight 0 is no tap
  TileMode mode;
  int wanted_tiles;  // as many as keep the device busy, where the map is large enough
};

}  // namespace fcnkern::cuda
