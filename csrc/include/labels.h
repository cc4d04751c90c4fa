// Label maps, and what is wrong with one.
#pragma once

#include <cstdint>

#include "dtypes.h"

namespace fcnkern {

// N x H x W class labels; strides in elements, of any size and sign.
struct LabelMap {
  const void* data;
  LabelType type;
  int64_t strides[3];
};

// A label that is neither a class nor ignored. The first one in N, H, W order, whatever the thread count;
// at one pixel the target's comes before the prediction's. position < 0: there is none.
struct LabelError {
  int64_t position;
  int64_t value;
  bool in_target;
};

}  // namespace fcnkern
