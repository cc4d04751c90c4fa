// Counts of (truth, prediction) pairs over label maps.
#pragma once

#include <cstdint>

#include "dtypes.h"
#include "isa.h"

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

struct ConfusionMatrixParams {
  LabelMap prediction, target;
  int64_t n, h, w;
  int64_t num_classes;
  bool has_ignore;
  int64_t ignore_index;
  int64_t* matrix;  // num_classes x num_classes, [truth][prediction]; written whole, void after an error
  int threads;
};

}  // namespace fcnkern

FCNKERN_DECLARE(fcnkern::LabelError, confusion_matrix, const fcnkern::ConfusionMatrixParams&)
