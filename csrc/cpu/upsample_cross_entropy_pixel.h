// The per-pixel path of upsample_cross_entropy: one exponential per pixel and class. It takes any scores,
// steep ones, infinities and NaN, any number of pixels to a cell, and double.
#pragma once

#include "upsample_cross_entropy_block.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// exp and log in the unit of a block's scores: log2 units for float, nats for double.
template <class T>
struct Unit;

template <>
struct Unit<float> {
  static constexpr float kPerNat = 1.44269504088896341f;
  static constexpr float kNats = 0.69314718055994531f;

  // For x <= 0 or NaN. Below 2^-100 it is 0, so that gradients do not become subnormal, which is slow.
  static VecF exp(VecF x) {
    const VecI tiny = x < -100.0f;
    const VecI is_nan = x != x;
    const VecF value = exp2((tiny | is_nan) ? VecF{} : x);
    return is_nan ? x : tiny ? VecF{} : value;
  }
  // For x >= 1 or NaN.
  static VecF log(VecF x) { return x == x ? log2(x == x ? x : splat(1.0f)) : x; }
};

template <>
struct Unit<double> {
  static constexpr double kPerNat = 1;
  static constexpr double kNats = 1;

  static Vec<double> exp(Vec<double> x) {
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = std::exp(x[lane]);
    return x;
  }
  static Vec<double> log(Vec<double> x) {
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = std::log(x[lane]);
    return x;
  }
};

// One pixel of every lane.
template <class T>
struct PixelLane {
  Mask<T> counts;
  Vec<T> factor;  // pixel weight
  VecI label;     // a class, also where the pixel does not count
};

// Weights of the four taps of one pixel of every lane.
template <class T>
struct Taps {
  Vec<T> left, right;
  T top, bottom;

  Taps(const Block<T>& block, int v, int r)
      : right(block.u0 + static_cast<T>(r) * block.du), bottom(block.v0 + static_cast<T>(v) * block.dv) {
    left = 1 - right;
    top = 1 - bottom;
  }
};

template <class T>
class PixelPath {
 public:
  PixelPath(Carver& carver, int64_t classes)
      : z_(carver.take<Vec<T>>(classes)), p_(carver.take<Vec<T>>(classes)) {}

  // The loss, in nats, of pixel (v, r) of every lane; 0 where it does not count. With corners != null adds
  // the gradients to them.
  Vec<T> run(const Block<T>& block, const LossWeights<T>& weights, bool skip_zero_taps, int v, int r,
             const PixelLane<T>& pixel, Corners<T>* corners) const {
    const Taps<T> taps(block, v, r);
    const Vec<T> greatest = blend_all(block, taps, skip_zero_taps);
    Vec<T> total{};
    for (int64_t c = 0; c < block.classes; ++c) {
      p_[c] = Unit<T>::exp(z_[c] - greatest);
      total += p_[c];
    }
    Vec<T> lse_weight{}, hard{}, target{};
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t label = pixel.label[lane];
      lse_weight[lane] = weights.lse[label];
      hard[lane] = weights.hard[label];
      target[lane] = z_[label][lane];
    }
    // Relative to the greatest score, so that a large common part cannot swamp a small loss.
    Vec<T> loss = lse_weight * Unit<T>::log(total) - hard * (target - greatest);
    if (weights.soft != nullptr)
      for (int64_t c = 0; c < block.classes; ++c) loss -= weights.soft[c] * (z_[c] - greatest);
    if (corners != nullptr)
      add_gradient(block.classes, weights, taps, pixel, lse_weight / total, hard, corners);
    return pixel.counts ? loss * pixel.factor * Unit<T>::kNats : Vec<T>{};
  }

  // The class with the greatest score at pixel (v, r) of every lane: the lowest one on ties, the first NaN.
  VecI argmax(const Block<T>& block, bool skip_zero_taps, int v, int r) const {
    blend_all(block, Taps<T>(block, v, r), skip_zero_taps);
    Vec<T> greatest = z_[0];
    Mask<T> best{};
    for (int64_t c = 1; c < block.classes; ++c) {
      const Mask<T> better = (z_[c] > greatest) | ((z_[c] != z_[c]) & (greatest == greatest));
      greatest = better ? z_[c] : greatest;
      best = better ? best - best + static_cast<int32_t>(c) : best;
    }
    return __builtin_convertvector(best, VecI);
  }

 private:
  static Vec<T> across(const T* left, const T* right, const Taps<T>& taps, bool skip_zero_taps) {
    const Vec<T> second = taps.right * load(right);
    return taps.left * load(left) + (skip_zero_taps ? (taps.right != 0 ? second : Vec<T>{}) : second);
  }

  // Fills z_; returns the greatest, NaN if any is NaN.
  Vec<T> blend_all(const Block<T>& block, const Taps<T>& taps, bool skip_zero_taps) const {
    const bool no_bottom = skip_zero_taps && taps.bottom == 0;
    Vec<T> greatest = splat(-static_cast<T>(INFINITY));
    for (int64_t c = 0; c < block.classes; ++c) {
      const int64_t at = c * block.stride;
      Vec<T> z = taps.top * across(block.top_left + at, block.top_right + at, taps, skip_zero_taps);
      if (!no_bottom)
        z += taps.bottom * across(block.bottom_left + at, block.bottom_right + at, taps, skip_zero_taps);
      z_[c] = z;
      greatest = z > greatest ? z : z != z ? z : greatest;
    }
    return greatest;
  }

  void add_gradient(int64_t classes, const LossWeights<T>& weights, const Taps<T>& taps,
                    const PixelLane<T>& pixel, Vec<T> scale, Vec<T> hard, Corners<T>* corners) const {
    for (int64_t c = 0; c < classes; ++c) p_[c] *= scale;
    if (weights.soft != nullptr)
      for (int64_t c = 0; c < classes; ++c) p_[c] -= weights.soft[c];
    for (int lane = 0; lane < kLanes; ++lane) p_[pixel.label[lane]][lane] -= hard[lane];
    for (int64_t c = 0; c < classes; ++c) {
      const Vec<T> g = pixel.counts ? p_[c] * pixel.factor : Vec<T>{};
      const Vec<T> left = g * taps.left, right = taps.right != 0 ? g * taps.right : Vec<T>{};
      corners[c].top_left += taps.top * left;
      corners[c].top_right += taps.top * right;
      if (taps.bottom == 0) continue;
      corners[c].bottom_left += taps.bottom * left;
      corners[c].bottom_right += taps.bottom * right;
    }
  }

  Vec<T>* z_;
  Vec<T>* p_;
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
