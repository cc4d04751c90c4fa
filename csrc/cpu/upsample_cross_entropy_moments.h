// Moments of the labels of a block, class by class: labels enter the loss and its gradient only through them.
#pragma once

#include <cstring>

#include "upsample_cross_entropy_counts.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// For each label and lane the four moments of the pixels that carry it: counted as 16-bit fields of one
// integer, in which at most 64 pixels with factors up to 7 * 7 fit, and then turned into numbers. Between
// blocks the entries of the classes are zero; those of kNone collect rubbish.
template <class T>
class LabelMoments {
 public:
  // has_holes: pixels drop out here and there, so that few cells have one label.
  LabelMoments(Carver& carver, int64_t classes, size_t label_bytes, bool has_pixel_weights, bool has_holes)
      : classes_(classes),
        entries_(label_bytes == 1 ? 256 : classes + 1),
        has_pixel_weights_(has_pixel_weights),
        has_holes_(has_holes),
        packed_(carver.take<VecU64>(entries_)),
        seen_(carver.take<uint8_t>(entries_)),
        moments_(carver.take<Moments<T>>(classes)),
        present_(carver.take<int32_t>(classes)) {}

  void clear() {
    std::memset(static_cast<void*>(packed_), 0, entries_ * sizeof(VecU64));
    std::memset(seen_, 0, entries_);
    std::memset(static_cast<void*>(moments_), 0, classes_ * sizeof(Moments<T>));
    valid_ = VecI{};
    weight_ = Vec<double>{};
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

  // Makes the moments of what was counted, with pixel weights by weighted(class), and adds its pixels to the counts.
  template <class Weighted>
  void close(const T* class_weight, Weighted weighted) {
    present_count_ = 0;
    for (int64_t c = 0; c < classes_; ++c) {  // no branch on what cannot be predicted
      present_[present_count_] = static_cast<int32_t>(c);
      present_count_ += seen_[c];
      seen_[c] = 0;
    }
    for (int64_t i = 0; i < present_count_; ++i) {
      const int64_t c = present_[i];
      unpack(packed_[c], moments_[c]);
      if (has_pixel_weights_) moments_[c] = weighted(present_[i]);
      packed_[c] = VecU64{};
      weight_ += __builtin_convertvector(class_weight[c] * moments_[c].one, Vec<double>);
    }
  }

  // Of a closed block: the classes that its labels name, and the moments of any class.
  int64_t present_count() const { return present_count_; }
  const int32_t* present() const { return present_; }
  Moments<T>& operator[](int64_t c) const { return moments_[c]; }

  // Of a closed block: takes each class's moments times its factor, plus a share of the sum over all classes.
  void weigh(const LossWeights<T>& weights) {
    if (weights.uniform && weights.soft == nullptr) return;
    Moments<T> all{};
    if (weights.soft != nullptr) {
      for (int64_t i = 0; i < present_count_; ++i) all = all + moments_[present_[i]];
      present_count_ = classes_;
      for (int64_t c = 0; c < classes_; ++c) present_[c] = static_cast<int32_t>(c);
    }
    for (int64_t i = 0; i < present_count_; ++i) {
      const int64_t c = present_[i];
      moments_[c] = weights.hard[c] * moments_[c];
      if (weights.soft != nullptr) moments_[c] = moments_[c] + weights.soft[c] * all;
    }
  }

  // Makes room for the next block.
  void forget() {
    for (int64_t i = 0; i < present_count_; ++i) moments_[present_[i]] = Moments<T>{};
  }

  // The counts since the last call: pixels, and the sum of their weights.
  void take_counts(Totals& totals) {
    totals.valid += static_cast<int64_t>(sum(valid_));
    totals.weight += sum(weight_);
    valid_ = VecI{};
    weight_ = Vec<double>{};
  }

 private:
  // An estimate: so many labels, of some 190 instructions each for all lanes, cost what the lanes cost one by one.
  static constexpr int kManyLabels = 24;

  void unpack(VecU64 packed, Moments<T>& moments) {
    typedef uint32_t Words __attribute__((vector_size(sizeof(VecI))));
    const Words low = __builtin_convertvector(packed, Words);
    const Words high = __builtin_convertvector(packed >> 32, Words);
    valid_ += (VecI)(low & 0xffff);
    const auto number = [](Words field) { return __builtin_convertvector((VecI)field, Vec<T>); };
    moments = {number(low & 0xffff), number(low >> 16), number(high & 0xffff), number(high >> 16)};
  }

  template <int kColumns, class L>
  void add_rows(const BlockLabels<L>& labels, int rows) {
    constexpr int kPerPair = 2 * BlockLabels<L>::kPerWord,
                  kRest = kColumns > kPerPair ? kColumns - kPerPair : 0;
    add_pairs<kColumns - kRest>(labels, labels.words, rows, 0);
    if constexpr (kRest > 0) add_pairs<kRest>(labels, labels.words + 2 * labels.stride, rows, kPerPair);
  }

  // n columns from column `right` on, whose labels lie in two words of each row. In most cells all are equal.
  template <int n, class L>
  __attribute__((always_inline)) void add_pairs(const BlockLabels<L>& labels, const uint32_t* words, int rows,
                                                int right) {
    const int64_t stride = labels.stride, row = BlockLabels<L>::kWords * stride;
    if constexpr (sizeof(L) == 1)
      if (has_holes_) return add_by_label<n>(words, stride, row, rows);
    const VecI differ = differences<n, L>(words, stride, row, rows);
    const uint64_t all = static_cast<uint64_t>(rows | (rows * (rows - 1) / 2) << 16);
    for (int lane = 0; lane < kLanes; ++lane)
      if (differ[lane] == 0)
        add_equal<n, L>(static_cast<L>(words[lane]), all, right, lane);
      else
        add_lane<n, L>(words + lane, stride, row, rows, right, lane);
  }

  // 0 in the lanes where n labels of all rows are the same.
  template <int n, class L>
  __attribute__((always_inline)) static VecI differences(const uint32_t* words, int64_t stride, int64_t row,
                                                         int rows) {
    constexpr int kBits = BlockLabels<L>::kBits;
    constexpr uint64_t kUsed = ~uint64_t{0} >> (64 - n * kBits);
    constexpr int kNeighbours = static_cast<int>(static_cast<uint32_t>(kUsed) >> kBits),
                  kSecond = static_cast<int>(kUsed >> 32);
    const auto word = [&](int64_t at) { return load(reinterpret_cast<const int32_t*>(words + at)); };
    const VecI first = word(0), second = word(stride);
    VecI differ = ((first ^ (first >> kBits)) & kNeighbours) | ((first ^ second) & kSecond);
    for (int v = 1; v < rows; ++v) differ |= (first ^ word(v * row)) | (second ^ word(v * row + stride));
    return differ;
  }

  // Label by label, from the lowest one on, all lanes at a time; lane by lane what is left of very many labels.
  template <int n>
  void add_by_label(const uint32_t* words, int64_t stride, int64_t row, int rows) {
    constexpr int kWords = (n + 3) / 4;
    uint8_t label = least_label<kWords>(words, stride, row, rows);
    for (int done = 0; label != BlockLabels<uint8_t>::kNone; ++done) {
      if (done == kManyLabels) return add_from<n>(words, stride, row, rows, label);
      const LabelCount counted = count_label<kWords>(words, stride, row, rows, label);
      packed_[label] += counted.moments;
      seen_[label] = 1;
      label = counted.next;
    }
  }

  template <int n>
  void add_from(const uint32_t* words, int64_t stride, int64_t row, int rows, uint8_t least) {
    uint32_t rest[2 * kCellPixels * kLanes];
    keep_labels<(n + 3) / 4>(words, stride, row, rows, least, rest);
    for (int lane = 0; lane < kLanes; ++lane) add_lane<n, uint8_t>(rest + lane, kLanes, 2 * kLanes, rows, 0, lane);
  }

  // Rows that are the same are counted together.
  template <int n, class L>
  __attribute__((always_inline)) void add_lane(const uint32_t* words, int64_t stride, int64_t row, int rows,
                                               int right, int lane) {
    uint64_t pair = words[0] | static_cast<uint64_t>(words[stride]) << 32, same = 0;
    for (int down = 0; down < rows; ++down, words += row) {
      const uint64_t next = words[0] | static_cast<uint64_t>(words[stride]) << 32;
      if (next != pair) {
        add_pair<n, L>(pair, same, right, lane);
        pair = next;
        same = 0;
      }
      same += 1 | down << 16;
    }
    add_pair<n, L>(pair, same, right, lane);
  }

  // n neighbouring labels, the first one in column `right`; `same` holds the first two moments of each. One
  // addition where the labels are equal, else one each.
  template <int n, class L>
  __attribute__((always_inline)) void add_pair(uint64_t pair, uint64_t same, int right, int lane) {
    constexpr int kBits = BlockLabels<L>::kBits;
    constexpr uint64_t kUsed = ~uint64_t{0} >> (64 - n * kBits);
    if (((pair ^ (pair >> kBits)) & (kUsed >> kBits)) == 0)
      return add_equal<n, L>(static_cast<L>(pair), same, right, lane);
    const uint64_t step = same << 32;
    uint64_t moments = same + right * step;
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i, moments += step)
      entry<L>(static_cast<L>(pair >> (kBits * i)), lane) += moments;
  }
  template <int n, class L>
  __attribute__((always_inline)) void add_equal(uint64_t label, uint64_t same, int right, int lane) {
    entry<L>(label, lane) += n * same + ((n * right + n * (n - 1) / 2) * same << 32);
  }
  template <class L>
  __attribute__((always_inline)) uint64_t& entry(uint64_t label, int lane) {
    const bool is_class = sizeof(L) == 1 || label < static_cast<uint64_t>(classes_);
    const int64_t at = is_class ? static_cast<int64_t>(label) : classes_;
    seen_[at] = 1;
    return reinterpret_cast<uint64_t*>(packed_ + at)[lane];
  }

  int64_t classes_;
  int64_t entries_;
  bool has_pixel_weights_, has_holes_;
  VecU64* packed_;       // [label]
  uint8_t* seen_;        // [label], 1 where a pixel of the block carries it
  Moments<T>* moments_;  // [class]
  int32_t* present_;
  int64_t present_count_ = 0;
  VecI valid_{};
  Vec<double> weight_{};  // of all blocks of a band: many more than fp32 could add up
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
