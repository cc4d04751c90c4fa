// Counts of (truth, prediction) pairs over label maps.
#pragma once

#include <cstdint>

#include "isa.h"
#include "labels.h"
#include "upsampling.h"

namespace fcnkern {

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
