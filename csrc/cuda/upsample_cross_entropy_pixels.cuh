// Which pixels of a loss count, and how much.
#pragma once

#include "labels.cuh"
#include "philox.h"
#include "upsample_cross_entropy.h"

namespace fcnkern::cuda {

constexpr int kIgnored = -1;

__device__ __forceinline__ int64_t label_at(const LabelMap& map, int64_t offset) {
  return label_at(map.data, map.type, offset);
}

// kIgnored, the class, or `classes` where the label is out of range.
__device__ __forceinline__ int class_of(int64_t label, const LossPixels& p) {
  if (label == p.ignore_index) return kIgnored;
  return static_cast<uint64_t>(label) < static_cast<uint64_t>(p.classes) ? static_cast<int>(label) : p.classes;
}

__device__ __forceinline__ bool is_class(int kind, const LossPixels& p) {
  return static_cast<unsigned>(kind) < static_cast<unsigned>(p.classes);
}

// Index of a pixel in N x H x W.
__device__ __forceinline__ int64_t place_of(const LossPixels& p, int n, int y, int x) {
  return (static_cast<int64_t>(n) * p.height + y) * p.width + x;
}

// Walks along a row of pixels and knows the random word of the sampling cell that it is in.
class SamplingWalk {
 public:
  __device__ __forceinline__ SamplingWalk(const LossPixels& p, int n, int y, int x) : p_(p), n_(n) {
    if (p.limits == nullptr) return;
    y_ = static_cast<uint32_t>(y / p.cell), x_ = static_cast<uint32_t>(x / p.cell);
    left_ = p.cell - (x - static_cast<int>(x_) * p.cell);
    draw();
  }
  __device__ __forceinline__ void step() {
    if (p_.limits == nullptr || --left_ > 0) return;
    ++x_, left_ = p_.cell;
    draw();
  }
  __device__ __forceinline__ bool keeps(int kind) const {
    if (p_.limits == nullptr || !is_class(kind, p_)) return true;
    return word_ <= p_.limits[p_.limit_per_class ? kind : 0];
  }

 private:
  __device__ __forceinline__ void draw() {
    word_ = philox4x32(static_cast<uint64_t>(*p_.seed), {{x_, y_, static_cast<uint32_t>(n_), 0}}).word[0];
  }

  const LossPixels& p_;
  int n_, left_ = 0;
  uint32_t x_ = 0, y_ = 0;
  int64_t word_ = 0;
};

__device__ __forceinline__ bool is_hard_enough(const LossPixels& p, int kind, int64_t place) {
  if (p.hard_losses == nullptr || !is_class(kind, p)) return true;
  const float loss = p.hard_losses[place];
  return loss > p.cuts[0] || loss >= p.cuts[1];
}

// The weights of one class: by itself, as a target, and at every pixel that counts.
struct ClassFactors {
  float own, target, everywhere;
};

__device__ __forceinline__ ClassFactors class_factors(const LossPixels& p, int c) {
  const float own = p.class_weight == nullptr ? 1.0f : p.class_weight[c];
  return {own, own * (1.0f - p.smoothing), own * p.smoothing / static_cast<float>(p.classes)};
}

__device__ __forceinline__ float weight_of(const LossPixels& p, int64_t place) {
  return p.pixel_weight == nullptr ? 1.0f : p.pixel_weight[place];
}

// What multiplies the logarithm of a pixel's sum of exponentials, before the pixel's own weight:
// (1 - smoothing) w[label] + smoothing * sum(w) / C.
__device__ __forceinline__ float target_factor(const LossPixels& p, int kind) {
  if (p.class_weight == nullptr) return 1.0f;
  const float own = p.class_weight[kind];
  if (p.smoothing == 0.0f) return own;
  return (1.0f - p.smoothing) * own + p.smoothing * *p.total_weight / static_cast<float>(p.classes);
}

}  // namespace fcnkern::cuda
