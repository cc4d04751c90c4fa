// Launchers of the fused loss, and what they take: addresses of device memory, sizes, strides in elements.
#pragma once

#include <cstdint>

#include "labels.h"
#include "stream.h"
#include "views.h"

namespace fcnkern::cuda {

// How much each pixel counts. Null pointers stand for modes that are off.
struct LossPixels {
  LabelMap target;
  int classes, height, width;
  int64_t ignore_index;
  const float* class_weight;
  const float* total_weight;  // the class weights' sum, one number; with class weights and smoothing
  const float* pixel_weight;  // N x H x W
  float smoothing;
  const int64_t* limits;  // the largest random word that keeps a pixel: one, or one per class
  bool limit_per_class;
  const int64_t* seed;
  int cell;                 // side of a sampling cell
  const float* hard_losses;  // N x H x W; kept where above the first cut or not below the second
  const float* cuts;
  unsigned long long* report;
};

// Cells between neighbouring scores along one axis: fcnkern/backends/_axes.py's Cells.
struct LossAxis {
  const int* first;
  const int* counts;
  const float* start;
  float step;
  int parts;
};

// Loss and gradient of scores that a `Resample` upsamples.
struct LossCells {
  LossPixels pixels;
  TensorView scores;  // N x C x h x w
  int height, width;  // of the scores
  LossAxis y, x;
  int slots;  // pixels of a part of a cell along an axis, at most: 2, 4 or 8
  bool zero;  // scores outside the source are 0
  bool gentle_twist;
  float steep;  // largest jump between neighbouring corners that geometric sequences take
  int lanes, columns, x_begin, y_begin, rows, band, strips, bands;
  float* losses;    // N x H x W of zeros, or null
  float* grad;      // N x C x h x w, or null
  int64_t grad_stride[4];
  float* seam;      // strips * bands x C x 32
  float* rim;       // strips x rows x C x 2
  float* partials;  // 3 x (strips * bands): losses, weights, pixels
  uint32_t* counts;  // zeros: programs x (C + 2) x 32, four times that with pixel weights; null: shared memory
};

// Loss and gradient of scores at full size.
struct LossFull {
  LossPixels pixels;
  TensorView scores;  // images x C x rows x W
  int images, rows, first_image, first_row;
  int blocks;           // of an image
  float divisor;        // of the gradient; 0 stands for the sum of the weights
  const float* weight;  // that sum, one number, where it is asked for
  float* losses;
  float* grad;
  int64_t grad_stride[4];
  float* partials;  // 3 x (images * blocks)
};

// Sums the partial sums: loss, the scale of the reduction (1 / divisor, or 1 / the weight where that is 0), counts.
struct LossTotal {
  const float* partials;
  int programs;
  float divisor;
  float* loss;
  float* scale;
  int64_t* stats;
};

// Adds to the gradient what crossed borders of programs, and scales it.
struct LossFinish {
  float* grad;
  int64_t grad_stride[4];
  int images, classes, height, width;
  bool channels_last;
  const float *seam, *rim, *scale;
  int columns, x_begin, x_end, y_begin, y_end, band, strips, x_parts, y_parts;
};

constexpr int kLossPixelsPerBlock = 128;

void upsample_cross_entropy_cells(const LossCells& params, const Stream& stream);
void upsample_cross_entropy_full(const LossFull& params, const Stream& stream);
void upsample_cross_entropy_total(const LossTotal& params, const Stream& stream);
void upsample_cross_entropy_finish(const LossFinish& params, const Stream& stream);
// partials[block] = the sum of the weights of the pixels that count.
void upsample_cross_entropy_weight(const LossPixels& pixels, int images, float* partials, const Stream& stream);
// partials[block] = how many of the pixels that count have the predicted label (N x H x W, dense).
void upsample_cross_entropy_correct(const LossPixels& pixels, const LabelMap& predicted, int images, int* partials,
                                    const Stream& stream);

}  // namespace fcnkern::cuda
