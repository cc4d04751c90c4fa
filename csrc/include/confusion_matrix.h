// Counts of (truth, prediction) pairs over label maps.
#pragma once

#include <cstdint>

#include "dtypes.h"
#include "isa.h"
#include "upsample_argmax.h"

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
  LabelMap target;
  int64_t n, h, w;
  int64_t num_classes;
  bool has_ignore;
  int64_t ignore_index;
  int64_t* matrix;  // num_classes x num_classes, [truth][prediction]; not written where a label is invalid
  int threads;
};

}  // namespace fcnkern

FCNKERN_DECLARE(fcnkern::LabelError, confusion_of_labels, const fcnkern::ConfusionMatrixParams&,
                const fcnkern::LabelMap& prediction)
FCNKERN_DECLARE(fcnkern::LabelError, confusion_of_scores, const fcnkern::ConfusionMatrixParams&,
                const fcnkern::Upsampling& prediction)
