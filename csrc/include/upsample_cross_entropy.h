// Softmax cross-entropy of linearly upsampled scores, with its gradient for the low-resolution scores.
#pragma once

#include <cstdint>

#include "isa.h"
#include "labels.h"
#include "upsampling.h"

namespace fcnkern {

// "Accumulator" is double for kF64 scores and float for all others. Per-pixel maps are contiguous N x H x W.
struct UpsampleCrossEntropyParams {
  Upsampling upsampling;

  LabelMap target;  // N x H x W
  int64_t ignore_index;
  const double* class_weight;  // per class, or null
  double label_smoothing;

  const double* keep;  // keep_count (0, 1 or `classes`) probabilities of keeping a pixel
  int64_t keep_count;
  int64_t cell;  // side of a sampling cell in pixels
  uint64_t seed;
  int64_t first_image, first_row;  // where this target lies in that which sampling counts cells in
  const void* hard_losses;         // accumulator map, or null; kept where it is > hard_above or >= hard_from
  double hard_above, hard_from;

  const void* pixel_weight;  // accumulator map of factors, or null
  double divisor;            // of loss and gradient; 0: the sum of the weights of the pixels that count
  void* losses;              // accumulator map that takes the losses undivided, or null; then no gradient
  void* grad;                // N x C x h x w, accumulator, or null
  bool channels_last;        // layout of `grad`: N x h x w x C; otherwise N x C x h x w
  bool count_correct;
  int threads;
};

struct UpsampleCrossEntropyResult {
  double loss;
  double weight;  // sum of the weights of the pixels that count
  int64_t valid, correct;
  LabelError error;  // all else is void after an error
};

}  // namespace fcnkern

FCNKERN_DECLARE(fcnkern::UpsampleCrossEntropyResult, upsample_cross_entropy,
                const fcnkern::UpsampleCrossEntropyParams&)
