// Label map of upsampled scores.
#pragma once

#include "dtypes.h"
#include "isa.h"
#include "upsampling.h"

namespace fcnkern {

struct UpsampleArgmaxParams {
  Upsampling upsampling;
  LabelType label_type;
  void* labels;      // N x H x W, contiguous
  void* confidence;  // probability of the label, likewise; double for double scores, else float; may be null
  int threads;
};

}  // namespace fcnkern

FCNKERN_DECLARE(void, upsample_argmax, const fcnkern::UpsampleArgmaxParams&)
