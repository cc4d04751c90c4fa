// Labels on their way into a histogram: loads of several pixels, runs of equal pairs, and the bins.
//
// A thread takes pieces of kPixels labels of both maps, two 16-bit labels to a word.
#pragma once

#include "confusion_matrix.h"
#include "labels.cuh"
#include "ptx.cuh"

namespace fcnkern::cuda {

constexpr int kCountThreads = 256;

// 16-bit labels that are no classes: of pixels that do not count, as a tile's kNoLabel, and labels out of
// range.
constexpr unsigned kNothing = 0xfffe, kInvalid = 0xffff;
constexpr unsigned kNoBin = 0xffffffffu;

// Which labels of a map are classes and which are ignored.
struct LabelRule {
  int classes;
  bool has_ignore;
  int64_t ignore_index;

  __device__ __forceinline__ unsigned narrowed(int64_t label) const {
    if (has_ignore && label == ignore_index) return kNothing;
    return label >= 0 && label < classes ? static_cast<unsigned>(label) : kInvalid;
  }
};

// Labels a thread takes at a time: 16 bytes, or 4 wider labels.
__host__ __device__ constexpr int piece_pixels(LabelType type) { return type == LabelType::kU8 ? 16 : 4; }

// A piece as it lies in memory. It is loaded and taken apart in two steps, so that loads of two maps are in
// flight together.
struct RawPiece {
  unsigned words[8];
};

// Loads kPixels successive labels from an address that is aligned to all of them, or to 16 bytes.
template <int kPixels>
__device__ __forceinline__ RawPiece load_piece(const void* from, LabelType type) {
  RawPiece piece{};
  const int bytes = kPixels * label_bytes(type);
  if (kPixels == 4 && bytes == 4) {
    piece.words[0] = __ldg(static_cast<const unsigned*>(from));
  } else if (kPixels == 4 && bytes == 8) {
    const uint2 words = __ldg(static_cast<const uint2*>(from));
    piece.words[0] = words.x, piece.words[1] = words.y;
  } else {
    const auto* source = static_cast<const uint4*>(from);
    const uint4 words = __ldg(source), more = kPixels == 4 && bytes == 32 ? __ldg(source + 1) : uint4{};
    piece.words[0] = words.x, piece.words[1] = words.y, piece.words[2] = words.z, piece.words[3] = words.w;
    piece.words[4] = more.x, piece.words[5] = more.y, piece.words[6] = more.z, piece.words[7] = more.w;
  }
  return piece;
}

template <class Label>
__device__ __forceinline__ int64_t label_in(const RawPiece& piece, int i) {
  const auto& words = piece.words;
  if constexpr (sizeof(Label) == 2) return static_cast<int16_t>(words[i / 2] >> 16 * (i % 2));
  else if constexpr (sizeof(Label) == 4) return static_cast<int32_t>(words[i]);
  else return static_cast<int64_t>(words[2 * i] | static_cast<uint64_t>(words[2 * i + 1]) << 32);
}

template <class Label, int kWords>
__device__ __forceinline__ void narrow_all(const RawPiece& piece, const LabelRule& rule,
                                           unsigned (&pairs)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const unsigned low = rule.narrowed(label_in<Label>(piece, 2 * i));
    pairs[i] = low | rule.narrowed(label_in<Label>(piece, 2 * i + 1)) << 16;
  }
}

// The labels of a piece, of bytes where it has 16, as pairs; bytes as they are, of other types classes alone.
template <int kWords>
__device__ __forceinline__ void take_apart(const RawPiece& piece, LabelType type, const LabelRule& rule,
                                           unsigned (&pairs)[kWords]) {
  if (kWords == 8 || type == LabelType::kU8) {
#pragma unroll
    for (int i = 0; i < kWords; ++i)
      pairs[i] = __byte_perm(piece.words[i / 2], 0, i % 2 == 0 ? 0x4140 : 0x4342);
  } else if constexpr (kWords == 2) {
    if (type == LabelType::kI16) narrow_all<int16_t>(piece, rule, pairs);
    else if (type == LabelType::kI32) narrow_all<int32_t>(piece, rule, pairs);
    else narrow_all<int64_t>(piece, rule, pairs);
  }
}

// Bytes to which the address of a piece must be aligned.
__host__ __device__ constexpr int piece_alignment(int pixels, LabelType type) {
  return pixels * label_bytes(type) < 16 ? pixels * label_bytes(type) : 16;
}

// Where pairs are added. In shared memory `copies` neighbouring counters, a power of two, are a bin, so that
// lanes with equal pairs seldom meet; with copies = 0 bins are in global memory.
class Bins {
 public:
  __device__ __forceinline__ Bins(unsigned* shared, int copies, int classes, unsigned long long* counts)
      : shared_(shared),
        own_(shared + (threadIdx.x & (copies - 1))),
        copies_(copies),
        number_(static_cast<unsigned>(classes) * classes),  // below 2^32: a label has 16 bits
        counts_(counts) {}

  __device__ __forceinline__ void clear() const {
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < number_ * copies_; i += kCountThreads) shared_[i] = 0;
  }
  __device__ __forceinline__ void add(unsigned bin, unsigned number) const {
    if (opaque(copies_) > 0) atomicAdd(own_ + bin * copies_, number);
    else atomicAdd(counts_ + bin, static_cast<unsigned long long>(number));
  }
  // Adds the bins in shared memory to the counts, after a barrier.
  __device__ __forceinline__ void finish() const {
    if (copies_ == 0) return;
#pragma unroll 1
    for (unsigned bin = threadIdx.x; bin < number_; bin += kCountThreads) {
      unsigned long long total = 0;
#pragma unroll 1
      for (int i = 0; i < copies_; ++i) total += shared_[bin * copies_ + i];
      if (total != 0) atomicAdd(counts_ + bin, total);
    }
  }

 private:
  unsigned *shared_, *own_;
  int copies_;
  unsigned number_;
  unsigned long long* counts_;
};

// One pixel of a block with a target, and one with a prediction, that are neither classes nor ignored: 1 +
// index.
struct WrongPixels {
  unsigned long long target, prediction;
};

// Counts pairs of labels that a thread meets one after the other: an addition for each run of equal pairs.
// The counts are sums of integers and do not depend on the order.
class PairCounter {
 public:
  __device__ __forceinline__ PairCounter(const Bins& bins, int classes, unsigned ignored_byte,
                                         WrongPixels& wrong)
      : bins_(bins), classes_(classes), ignored_(ignored_byte), wrong_(wrong) {}

  // Takes a piece; `pixel(i)` is the index of its pixel i in the map, asked for where a label is wrong.
  template <int kWords, class Pixel>
  __device__ __forceinline__ void take(const unsigned (&truth)[kWords], const unsigned (&guess)[kWords],
                                       Pixel&& pixel) {
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) {
      const unsigned pair = __byte_perm(truth[i / 2], guess[i / 2], i % 2 == 0 ? 0x5410 : 0x7632);
      if (pair != pair_) begin_run(pair, position_ + i, [&] { return pixel(i); });
    }
    position_ += 2 * kWords;
  }

  template <class Pixel>
  __device__ __forceinline__ void take_one(unsigned truth, unsigned guess, Pixel&& pixel) {
    const unsigned pair = truth | guess << 16;
    if (pair != pair_) begin_run(pair, position_, pixel);
    ++position_;
  }

  __device__ __forceinline__ void finish() { end_run(position_); }

 private:
  __device__ __forceinline__ void end_run(unsigned position) const {
    if (bin_ != kNoBin) bins_.add(bin_, position - begin_);
  }

  template <class Pixel>
  __device__ __forceinline__ void begin_run(unsigned pair, unsigned position, Pixel&& pixel) {
    end_run(position);
    pair_ = pair, begin_ = position, bin_ = bin_of(pair & 0xffff, pair >> 16, pixel);
  }

  template <class Pixel>
  __device__ __forceinline__ unsigned bin_of(unsigned truth, unsigned guess, Pixel&& pixel) const {
    if (truth == ignored_ || truth == kNothing || guess == kNothing) return kNoBin;
    const auto classes = static_cast<unsigned>(classes_);
    if (truth < classes && guess < classes) return truth * classes + guess;
    const auto index = static_cast<unsigned long long>(pixel()) + 1;
    atomicExch(truth < classes ? &wrong_.prediction : &wrong_.target, index);
    return kNoBin;
  }

  Bins bins_;
  int classes_;
  unsigned ignored_;
  WrongPixels& wrong_;
  unsigned pair_ = kNothing, begin_ = 0, position_ = 0, bin_ = kNoBin;
};

// Index of a pixel in a map of any strides; a walk along its rows.
struct PixelWalk {
  int64_t n, y, x, h, w;

  __device__ __forceinline__ PixelWalk(int64_t index, int64_t h, int64_t w) : h(h), w(w) {
    const int64_t line = index / w;
    n = line / h, y = line % h, x = index % w;
  }
  __device__ __forceinline__ int64_t offset(const LabelMap& map) const {
    return n * map.strides[0] + y * map.strides[1] + x * map.strides[2];
  }
  __device__ __forceinline__ void advance() {
    if (++x < w) return;
    x = 0;
    if (++y < h) return;
    y = 0, ++n;
  }
};

// Tells the label of a wrong pixel.
__device__ __forceinline__ void tell_wrong(unsigned long long wrong, const LabelMap& map, int64_t h,
                                           int64_t w, unsigned long long* words) {
  if (wrong == 0) return;
  const auto index = static_cast<int64_t>(wrong) - 1;
  LabelReport{words}.tell(index, label_at(map.data, map.type, PixelWalk(index, h, w).offset(map)));
}

}  // namespace fcnkern::cuda
