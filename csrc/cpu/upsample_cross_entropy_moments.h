// Moments of the labels of a block, class by class: labels enter the loss and its gradient only through them.
#pragma once

#include <cstring>

#include "upsample_cross_entropy_block.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// For each label and lane the four moments of the pixels that carry it, as 16-bit fields of one integer: at
// most 64 pixels with factors up to 8 * 7 fit. With pixel weights, which are no integers, four numbers beside
// it. Between blocks the entries of the classes are zero; the entry of kNone collects rubbish.
template <class T>
class LabelMoments {
 public:
  LabelMoments(Carver& carver, int64_t classes, size_t label_bytes, bool has_pixel_weights)
      : classes_(classes),
        entries_(label_bytes == 1 ? 256 : classes + 1),
        packed_(carver.take<uint64_t>(entries_ * kLanes)),
        weighted_(has_pixel_weights ? carver.take<Moments<T>>(entries_) : nullptr) {}

  void clear() {
    std::memset(packed_, 0, entries_ * sizeof(VecU64));
    if (weighted_ != nullptr) std::memset(static_cast<void*>(weighted_), 0, entries_ * sizeof(Moments<T>));
    valid_ = VecI{};
    weight_ = Vec<T>{};
  }

  // Counts the labels of a block's pixels.
  template <class L>
  void add(const BlockLabels<L>& labels, int rows, int columns) {
    for (int v = 0; v < rows; ++v) {
      const uint64_t* words = labels.words + v * BlockLabels<L>::kWords * labels.stride;
      for (int lane = 0; lane < kLanes; ++lane)
        add_run<L>(words + lane, labels.stride, lane, rows - v, columns);
    }
  }

  void add_weighted(int64_t label, int lane, int up, int right, T weight) {
    Moments<T>& entry = weighted_[label];
    entry.one[lane] += weight;
    entry.up[lane] += weight * static_cast<T>(up);
    entry.right[lane] += weight * static_cast<T>(right);
    entry.up_right[lane] += weight * static_cast<T>(up * right);
  }

  // Sum over the classes.
  Moments<T> all_classes() const {
    Moments<T> total{};
    for (int64_t c = 0; c < classes_; ++c) {
      const Moments<T> m = weighted_ != nullptr ? weighted_[c] : unpack(load(packed_ + c * kLanes));
      total.one += m.one;
      total.up += m.up;
      total.right += m.right;
      total.up_right += m.up_right;
    }
    return total;
  }

  bool has(int64_t c) const { return any(load(packed_ + c * kLanes)); }

  // The moments of class c, which are then forgotten; counts its pixels.
  __attribute__((always_inline)) Moments<T> take(int64_t c, T class_weight) {
    const VecU64 packed = load(packed_ + c * kLanes);
    store(packed_ + c * kLanes, VecU64{});
    valid_ += __builtin_convertvector(packed & 0xffff, VecI);
    Moments<T> m = unpack(packed);
    if (weighted_ != nullptr) {
      m = weighted_[c];
      weighted_[c] = Moments<T>{};
    }
    weight_ += class_weight * m.one;
    return m;
  }

  // The counts since the last call: pixels, and the sum of their weights.
  void take_counts(Totals& totals) {
    totals.valid += static_cast<int64_t>(sum(valid_));
    totals.weight += sum(weight_);
    valid_ = VecI{};
    weight_ = Vec<T>{};
  }

 private:
  static constexpr uint64_t pack(int one, int up, int right, int up_right) {
    return static_cast<uint64_t>(one) | static_cast<uint64_t>(up) << 16 | static_cast<uint64_t>(right) << 32 |
           static_cast<uint64_t>(up_right) << 48;
  }
  template <int kField>
  static Vec<T> field(VecU64 packed) {
    return __builtin_convertvector(__builtin_convertvector((packed >> (16 * kField)) & 0xffff, VecI), Vec<T>);
  }
  __attribute__((always_inline)) static Moments<T> unpack(VecU64 packed) {
    return {field<0>(packed), field<1>(packed), field<2>(packed), field<3>(packed)};
  }

  // One row of one lane: one addition where all labels are equal, else one each.
  template <class L>
  __attribute__((always_inline)) void add_run(const uint64_t* words, int64_t stride, int lane, int up,
                                              int columns) {
    using Labels = BlockLabels<L>;
    constexpr uint64_t kOnes = ~uint64_t{0} / Labels::kNone;
    for (int q = 0, right = 0; q < Labels::kWords && right < columns; ++q, right += Labels::kPerWord) {
      const uint64_t word = words[q * stride];
      if (word == ~uint64_t{0}) continue;
      const int n = columns - right < Labels::kPerWord ? columns - right : Labels::kPerWord;
      const uint64_t used = ~uint64_t{0} >> (64 - n * Labels::kBits);
      const uint64_t first = static_cast<L>(word);
      if (((word ^ (first * kOnes)) & used) == 0) {
        const int rights = n * right + n * (n - 1) / 2;
        entry<L>(first, lane) += pack(n, n * up, rights, rights * up);
        continue;
      }
      const uint64_t step = pack(0, 0, 1, up);
      uint64_t moments = pack(1, up, right, right * up);
      for (int i = 0; i < n; ++i, moments += step)
        entry<L>(static_cast<L>(word >> (Labels::kBits * i)), lane) += moments;
    }
  }
  template <class L>
  __attribute__((always_inline)) uint64_t& entry(uint64_t label, int lane) {
    const bool is_class = sizeof(L) == 1 || label < static_cast<uint64_t>(classes_);
    return packed_[(is_class ? static_cast<int64_t>(label) : classes_) * kLanes + lane];
  }

  int64_t classes_;
  int64_t entries_;
  uint64_t* packed_;
  Moments<T>* weighted_;
  VecI valid_{};
  Vec<T> weight_{};
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
