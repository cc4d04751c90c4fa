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
        packed_(carver.take<VecU64>(entries_)),
        weighted_(has_pixel_weights ? carver.take<Moments<T>>(entries_) : nullptr) {}

  void clear() {
    std::memset(static_cast<void*>(packed_), 0, entries_ * sizeof(VecU64));
    if (weighted_ != nullptr) std::memset(static_cast<void*>(weighted_), 0, entries_ * sizeof(Moments<T>));
    valid_ = VecI{};
    weight_ = Vec<T>{};
  }

  // Counts the labels of a block's pixels.
  template <class L>
  void add(const BlockLabels<L>& labels, int rows, int columns) {
    switch (columns) {
      case 2:
        return add_rows<2>(labels, rows);
      case 4:
        return add_rows<4>(labels, rows);
      case 6:
        return add_rows<6>(labels, rows);
      default:
        return add_rows<8>(labels, rows);
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
      const Moments<T> m = weighted_ != nullptr ? weighted_[c] : unpack(packed_[c]);
      total.one += m.one;
      total.up += m.up;
      total.right += m.right;
      total.up_right += m.up_right;
    }
    return total;
  }

  bool has(int64_t c) const { return any(packed_[c]); }

  // The moments of class c, which are then forgotten; counts its pixels.
  __attribute__((always_inline)) Moments<T> take(int64_t c, T class_weight) {
    const VecU64 packed = packed_[c];
    packed_[c] = VecU64{};
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
  template <int kField>
  static Vec<T> field(VecU64 packed) {
    return __builtin_convertvector(__builtin_convertvector((packed >> (16 * kField)) & 0xffff, VecI), Vec<T>);
  }
  __attribute__((always_inline)) static Moments<T> unpack(VecU64 packed) {
    return {field<0>(packed), field<1>(packed), field<2>(packed), field<3>(packed)};
  }

  template <int kColumns, class L>
  void add_rows(const BlockLabels<L>& labels, int rows) {
    constexpr int kPerPair = 2 * BlockLabels<L>::kPerWord,
                  kRest = kColumns > kPerPair ? kColumns - kPerPair : 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint32_t* words = labels.words + lane;
      add_lane<kColumns - kRest, L>(words, labels.stride, rows, 0, lane);
      if constexpr (kRest > 0)
        add_lane<kRest, L>(words + 2 * labels.stride, labels.stride, rows, kPerPair, lane);
    }
  }

  // n columns of a lane from column `right` on, whose labels lie in two words of each row. Rows that are the
  // same are counted together.
  template <int n, class L>
  __attribute__((always_inline)) void add_lane(const uint32_t* words, int64_t stride, int rows, int right,
                                               int lane) {
    uint64_t pair = words[0] | static_cast<uint64_t>(words[stride]) << 32, same = 0;
    for (int up = rows; up > 0; --up, words += BlockLabels<L>::kWords * stride) {
      const uint64_t next = words[0] | static_cast<uint64_t>(words[stride]) << 32;
      if (next != pair) {
        add_pair<n, L>(pair, same, right, lane);
        pair = next;
        same = 0;
      }
      same += 1 | up << 16;
    }
    add_pair<n, L>(pair, same, right, lane);
  }

  // n neighbouring labels, the first one in column `right`; `same` holds the first two moments of each. One
  // addition where the labels are equal, else one each.
  template <int n, class L>
  __attribute__((always_inline)) void add_pair(uint64_t pair, uint64_t same, int right, int lane) {
    constexpr int kBits = BlockLabels<L>::kBits;
    constexpr uint64_t kOnes = ~uint64_t{0} / BlockLabels<L>::kNone, kUsed = ~uint64_t{0} >> (64 - n * kBits);
    const uint64_t label = static_cast<L>(pair), step = same << 32;
    if (((pair ^ (label * kOnes)) & kUsed) == 0) {
      entry<L>(label, lane) += n * same + (n * right + n * (n - 1) / 2) * step;
      return;
    }
    uint64_t moments = same + right * step;
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i, moments += step)
      entry<L>(static_cast<L>(pair >> (kBits * i)), lane) += moments;
  }
  template <class L>
  __attribute__((always_inline)) uint64_t& entry(uint64_t label, int lane) {
    const bool is_class = sizeof(L) == 1 || label < static_cast<uint64_t>(classes_);
    return reinterpret_cast<uint64_t*>(packed_ + (is_class ? static_cast<int64_t>(label) : classes_))[lane];
  }

  int64_t classes_;
  int64_t entries_;
  VecU64* packed_;
  Moments<T>* weighted_;
  VecI valid_{};
  Vec<T> weight_{};
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
