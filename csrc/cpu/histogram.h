// Joint histogram of predicted and true classes. Both are narrowed to bytes, or to 16-bit words for more than
// kByteClasses classes, so that one 64-bit compare finds the runs of pixels that all fall into one cell.
// Two values beyond the classes stay free: `classes` for ignored pixels, the largest one for invalid labels.
// Per pixel: a 16- or 32-bit cell by vectors, then a shift, an extension and an increment.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "argmax_rows.h"
#include "confusion_matrix.h"
#include "label_limit.h"
#include "scratch.h"

namespace fcnkern::FCNKERN_ISA {
constexpr int kChunk = 1024;  // pixels narrowed and counted at a time
constexpr int kGroup = 8;     // pixels whose cells are compared at once: a line of 64-bit labels

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
// The comparisons are unsigned in the wider of the two types, which sign-extension and label_limit make exact.
template <class Narrow, class Label>
void narrow(const Label* labels, int64_t stride, int n, int64_t classes, const int64_t* ignore, Narrow* out) {
  using Wide = std::make_unsigned_t<std::conditional_t<(sizeof(Label) > sizeof(Narrow)), Label, Narrow>>;
  constexpr Wide kNone = static_cast<Narrow>(-1);
  const bool can_match = ignore != nullptr && static_cast<Label>(*ignore) == *ignore;
  const Wide ignored = can_match ? static_cast<Wide>(static_cast<Label>(*ignore)) : 0;
  const Wide mark = can_match ? static_cast<Wide>(classes) : 0;
  const Wide limit = static_cast<Wide>(label_limit<Label>(classes));
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

// What `narrow` gives for a row without gaps, but permuted, in a way that n and the types alone determine: a
// register's worth of labels is laid over the unused bits of another. False: a label exceeds a Narrow.
template <class Narrow, class Label>
bool fold(const Label* labels, int n, int64_t classes, const int64_t* ignore, Narrow* out) {
  using Word = std::make_unsigned_t<Label>;
  typedef Word Words __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(Word)), may_alias));
  constexpr int kBits = 8 * sizeof(Narrow), kWords = sizeof(Words) / sizeof(Word);
  constexpr int kParts = sizeof(Word) / sizeof(Narrow);
  Words seen{};
  int i = 0;
  for (; i + kParts * kWords <= n; i += kParts * kWords) {
    Words packed{};
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      const Words some = *reinterpret_cast<const Words*>(labels + i + part * kWords);
      seen |= some;
      packed |= some << (kBits * part);
    }
    *reinterpret_cast<Words*>(out + i) = packed;
  }
  for (; i < n; ++i) {
    seen[0] |= static_cast<Word>(labels[i]);
    out[i] = static_cast<Narrow>(labels[i]);
  }
  if (any(seen & ~static_cast<Word>(static_cast<Narrow>(-1)))) return false;
  narrow(out, 1, n, classes, ignore, out);
  return true;
}

template <class Narrow>
bool fold(const LabelMap& map, int64_t offset, int n, int64_t classes, const int64_t* ignore, Narrow* out) {
  const auto run = [&](auto label) {
    return fold(static_cast<const decltype(label)*>(map.data) + offset, n, classes, ignore, out);
  };
  return map.type == LabelType::kI64 ? run(int64_t{}) : map.type == LabelType::kI32 && run(int32_t{});
}

// Pixels that will be counted next, to bring into the cache meanwhile; they may lie past the map's end.
struct Upcoming {
  const char* at;
  int64_t step;  // bytes

  Upcoming(const LabelMap& map, int64_t offset) {
    const int64_t size = map.type == LabelType::kU8    ? 1
                         : map.type == LabelType::kI16 ? 2
                         : map.type == LabelType::kI32 ? 4
                                                       : 8;
    at = static_cast<const char*>(map.data) + offset * size;
    step = map.strides[2] * size;
  }

  void fetch(int64_t pixel) const { __builtin_prefetch(at + pixel * step); }
};

// One thread's counts. Several copies for few classes, used in turn: increments of one cell by neighbouring
// pixels then do not wait for each other.
class Histogram {
 public:
  static size_t bytes(int64_t classes) { return cells(classes) * copies(classes) * sizeof(int64_t); }

  Histogram(int64_t classes, int64_t* counts) : classes_(classes) {
    for (int i = 0; i < kCopies; ++i) counts_[i] = counts + i % copies(classes) * cells(classes);
  }

  // Adds n <= kChunk pixels. Returns the first whose label is invalid (none of them is then counted), or -1.
  template <class Narrow>
  int add(Narrow* prediction, const Narrow* target, int n, Upcoming next_prediction, Upcoming next_target) {
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
    count(prediction, target, n, next_prediction, next_target);
    return -1;
  }

  // Adds these counts, without the row of ignored pixels, to a matrix.
  void add_to(int64_t* matrix) const {
    for (int64_t copy = 0; copy < copies(classes_); ++copy)
      for (int64_t i = 0; i < classes_ * classes_; ++i) matrix[i] += counts_[copy][i];
  }

 private:
  static constexpr int kCopies = 4;
  static int64_t cells(int64_t classes) { return (classes + 1) * classes; }
  static int64_t copies(int64_t classes) { return classes <= 32 ? kCopies : classes <= 64 ? 2 : 1; }

  template <class Narrow>
  void count(const Narrow* prediction, const Narrow* target, int n, Upcoming next_prediction,
             Upcoming next_target) {
    using Cell = std::conditional_t<sizeof(Narrow) == 1, uint16_t, uint32_t>;  // (classes + 1) classes fit
    constexpr int kBits = 8 * sizeof(Cell), kPerWord = 8 / sizeof(Cell), kWords = kGroup / kPerWord;
    alignas(64) Cell cells[kChunk];
    const Cell columns = static_cast<Cell>(classes_);
    for (int i = 0; i < n; ++i) cells[i] = static_cast<Cell>(target[i] * columns + prediction[i]);
    int64_t *const a = counts_[0], *const b = counts_[1], *const c = counts_[2], *const d = counts_[3];
    int i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      next_prediction.fetch(i);
      next_target.fetch(i);
      uint64_t words[kWords];
      std::memcpy(words, cells + i, sizeof words);
      uint64_t differ = words[0] ^ (words[0] << kBits | words[0] >> (64 - kBits));
      for (int k = 1; k < kWords; ++k) differ |= words[0] ^ words[k];
      if (differ == 0) {
        counts_[i / kGroup % kCopies][static_cast<Cell>(words[0])] += kGroup;
        continue;
      }
#pragma GCC unroll 4
      for (int k = 0; k < kGroup; k += 4) {
        ++a[cell_at<Cell>(words, k)];
        ++b[cell_at<Cell>(words, k + 1)];
        ++c[cell_at<Cell>(words, k + 2)];
        ++d[cell_at<Cell>(words, k + 3)];
      }
    }
    for (; i < n; ++i) ++a[cells[i]];
  }

  template <class Cell>
  static Cell cell_at(const uint64_t* words, int i) {
    constexpr int kPerWord = 8 / sizeof(Cell);
    return static_cast<Cell>(words[i / kPerWord] >> (8 * sizeof(Cell) * (i % kPerWord)));
  }

  int64_t classes_;
  int64_t* counts_[kCopies];
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
