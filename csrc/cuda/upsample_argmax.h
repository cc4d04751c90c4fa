// Label map of upsampled scores.
#pragma once

#include "label_tiles.h"
#include "labels.h"
#include "stream.h"

namespace fcnkern::cuda {

// Both N x H x W and contiguous.
struct LabelOutputs {
  void* labels;
  LabelType type;
  float* confidence;  // probability of the label; may be null
};

void upsample_argmax_fwd(const LabelTiles& plan, const LabelOutputs& outputs, const Stream& stream);

}  // namespace fcnkern::cuda
