// Joint histogram of predicted and true classes. Both are narrowed to bytes, or to 16-bit words for more than
// kByteClasses classes, so that one 64-bit compare finds the runs of pixels that all fall into one cell.
// Two values beyond the classes stay free: `classes` for ignored pixels, the largest one for invalid labels.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "argmax_rows.h"
#include "confusion_matrix.h"
#include "scratch.h"

namespace fcnkern::FCNKERN_ISA {
constexpr int kChunk = 2048;  // pixels narrowed and counted at a time

template <class Label>
int64_t load_label(const LabelMap& map, int64_t offset) {
  return static_cast<const Label*>(map.data)[offset];
}

FCNKERN_INLINE int64_t label_at(const LabelMap& map, int64_t offset) {
  switch (map.type) {
    case LabelType::kU8: return load_label<uint8_t>(map, offset);
    case LabelType::kI16: return load_label<int16_t>(map, offset);
    case LabelType::kI32: return load_label<int32_t>(map, offset);
    default: return load_label<int64_t>(map, offset);
  }
}

// out = label where it is a class, `classes` where it is ignored, the largest Narrow elsewhere.
// The comparisons are unsigned in the wider of the two types, which sign-extension makes exact.
template <class Narrow, class Label>
void narrow(const Label* labels, int64_t stride, int n, int64_t classes, const int64_t* ignore, Narrow* out) {
  using Wide = std::make_unsigned_t<std::conditional_t<(sizeof(Label) > sizeof(Narrow)), Label, Narrow>>;
  constexpr Wide kNone = static_cast<Narrow>(-1);
  const bool can_match = ignore != nullptr && static_cast<Label>(*ignore) == *ignore;
  const Wide ignored = can_match ? static_cast<Wide>(static_cast<Label>(*ignore)) : 0;
  const Wide mark = can_match ? static_cast<Wide>(classes) : 0;
  const Wide limit = static_cast<Wide>(classes);
  Label packed[kChunk];
  if (stride != 1) {
    for (int i = 0; i < n; ++i) packed[i] = labels[i * stride];
    labels = packed;
  }
  if (!can_match) {
    for (int i = 0; i < n; ++i) {
      const Wide label = static_cast<Wide>(labels[i]);
      out[i] = static_cast<Narrow>(label < limit ? label : kNone);
    }
    return;
  }
  for (int i = 0; i < n; ++i) {
    const Wide label = static_cast<Wide>(labels[i]);
    const Wide kept = label < limit ? label : kNone;
    out[i] = static_cast<Narrow>(label == ignored ? mark : kept);
  }
}

template <class Narrow>
void narrow(const LabelMap& map, int64_t offset, int n, int64_t classes, const int64_t* ignore, Narrow* out) {
  const int64_t stride = map.strides[2];
  const auto run = [&](auto label) {
    narrow(static_cast<const decltype(label)*>(map.data) + offset, stride, n, classes, ignore, out);
  };
  switch (map.type) {
    case LabelType::kU8: return run(uint8_t{});
    case LabelType::kI16: return run(int16_t{});
    case LabelType::kI32: return run(int32_t{});
    default: return run(int64_t{});
  }
}

// One thread's counts. Two copies for few classes, used in turn: increments of one cell by neighbouring pixels
// then do not wait for each other.
class Histogram {
 public:
  static size_t bytes(int64_t classes) { return cells(classes) * copies(classes) * sizeof(int64_t); }

  Histogram(int64_t classes, int64_t* counts)
      : classes_(classes), even_(counts), odd_(counts + cells(classes) * (copies(classes) - 1)) {}

  // Adds n <= kChunk pixels. Returns the first whose label is invalid (none of them is then counted), or -1.
  template <class Narrow>
  int add(Narrow* prediction, const Narrow* target, int n) {
    constexpr Narrow kNone = static_cast<Narrow>(-1);
    const Narrow ignored = static_cast<Narrow>(classes_);
    Narrow bad = 0, outside = 0;
    for (int i = 0; i < n; ++i) {
      const Narrow none = prediction[i] == kNone ? kNone : 0;
      outside |= none;
      bad |= static_cast<Narrow>((target[i] == kNone ? kNone : 0) | (target[i] == ignored ? 0 : none));
    }
    if (bad) {
      int i = 0;
      while (target[i] != kNone && (target[i] == ignored || prediction[i] != kNone)) ++i;
      return i;
    }
    if (outside)
      for (int i = 0; i < n; ++i) prediction[i] = prediction[i] == kNone ? 0 : prediction[i];
    count(prediction, target, n);
    return -1;
  }

  // Adds these counts, without the row of ignored pixels, to a matrix.
  void add_to(int64_t* matrix) const {
    for (int64_t i = 0; i < classes_ * classes_; ++i) matrix[i] += even_[i] + (odd_ == even_ ? 0 : odd_[i]);
  }

 private:
  static int64_t cells(int64_t classes) { return (classes + 1) * classes; }
  static int64_t copies(int64_t classes) { return classes <= 64 ? 2 : 1; }

  template <class Narrow>
  void count(const Narrow* prediction, const Narrow* target, int n) {
    constexpr int kPixels = 8 / sizeof(Narrow), kBits = 8 * sizeof(Narrow);
    constexpr uint64_t kOnes = ~uint64_t{0} / static_cast<Narrow>(-1);
    const int64_t columns = classes_;
    int64_t *even = even_, *odd = odd_;
    int i = 0;
    for (; i + kPixels <= n; i += kPixels) {
      uint64_t truths, guesses;
      std::memcpy(&truths, target + i, 8);
      std::memcpy(&guesses, prediction + i, 8);
      const uint64_t truth = static_cast<Narrow>(truths), guess = static_cast<Narrow>(guesses);
      if (((truths ^ (truth * kOnes)) | (guesses ^ (guess * kOnes))) == 0) {
        even[truth * columns + guess] += kPixels;
        continue;
      }
#pragma GCC unroll 4
      for (int lane = 0; lane < kPixels; lane += 2) {
        const int low = lane * kBits, high = low + kBits;
        ++even[static_cast<Narrow>(truths >> low) * columns + static_cast<Narrow>(guesses >> low)];
        ++odd[static_cast<Narrow>(truths >> high) * columns + static_cast<Narrow>(guesses >> high)];
      }
    }
    for (; i < n; ++i) ++even[target[i] * columns + prediction[i]];
  }

  int64_t classes_;
  int64_t *even_, *odd_;
};

// The histograms and the first invalid labels of all threads.
class Tally {
 public:
  Tally(int64_t classes, int threads)
      : classes_(classes),
        threads_(threads),
        stride_((Histogram::bytes(classes) + sizeof(LabelError) + 63) / 64 * 64),
        memory_(stride_ * threads) {
    std::memset(memory_.data(), 0, stride_ * threads);
    for (int t = 0; t < threads; ++t) error(t).position = kNoError;
  }

  Histogram histogram(int thread) {
    return {classes_, reinterpret_cast<int64_t*>(memory_.data() + stride_ * thread + sizeof(LabelError))};
  }

  // Keeps the error of the lowest position.
  void record(int thread, const LabelError& found) {
    if (found.position < error(thread).position) error(thread) = found;
  }

  // Writes the matrix, unless a label was invalid; returns the first one.
  LabelError finish(int64_t* matrix) {
    for (int t = 1; t < threads_; ++t) record(0, error(t));
    if (error(0).position != kNoError) return error(0);
    std::memset(matrix, 0, classes_ * classes_ * sizeof(int64_t));
    for (int t = 0; t < threads_; ++t) histogram(t).add_to(matrix);
    return {-1, 0, false};
  }

 private:
  static constexpr int64_t kNoError = INT64_MAX;

  LabelError& error(int thread) { return *reinterpret_cast<LabelError*>(memory_.data() + stride_ * thread); }

  int64_t classes_;
  int threads_;
  size_t stride_;
  Scratch memory_;
};

}  // namespace fcnkern::FCNKERN_ISA
