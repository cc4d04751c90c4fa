// A block of cells, one per lane, as the parts of upsample_cross_entropy hand it on.
#pragma once

#include "axis.h"
#include "winners.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

constexpr int kBlockPixels = kCellPixels * kCellPixels;

// In a lane's cell the score of a class is bilinear between its four corners: at pixel (v, r) the weight of
// the bottom corners is v0 + v * dv and that of the right ones u0 + r * du. Scores of float blocks are in
// units of log2.
template <class T>
struct Block {
  int64_t classes;
  int rows, columns;  // pixels; a lane may have fewer columns, its labels say so
  // [class * stride + lane]; float blocks hold at [classes] the least score of each, NaN beside one that is
  // not finite.
  const T *top_left, *top_right, *bottom_left, *bottom_right;
  int64_t stride;
  Vec<T> u0;
  T du, v0, dv;
};

// Rows of points above and below a run of cells, [class * stride], the first cell's left point first.
template <class T>
struct PointRows {
  T *top, *bottom;
  int64_t stride;

  // Adds a class's corners of kLanes neighbouring cells: a point takes two of them.
  void add(int64_t c, const Corners<T>& corners) const {
    add_row(top + c * stride, corners.top_left, corners.top_right);
    add_row(bottom + c * stride, corners.bottom_left, corners.bottom_right);
  }

 private:
  static void add_row(T* points, Vec<T> left, Vec<T> right) {
    store(points, load(points) + (left + shift_lanes<T>(right)));
    points[kLanes] += right[kLanes - 1];
  }
};

// The moments of a per-pixel quantity q over a cell: sums of q, v q, r q, v r q.
template <class T>
struct Moments {
  Vec<T> one, down, right, down_right;
};
template <class T>
FCNKERN_INLINE Moments<T> operator+(const Moments<T>& a, const Moments<T>& b) {
  return {a.one + b.one, a.down + b.down, a.right + b.right, a.down_right + b.down_right};
}
template <class T>
FCNKERN_INLINE Moments<T> operator-(const Moments<T>& a, const Moments<T>& b) {
  return {a.one - b.one, a.down - b.down, a.right - b.right, a.down_right - b.down_right};
}
template <class T>
FCNKERN_INLINE Moments<T> operator*(T factor, const Moments<T>& m) {
  return {factor * m.one, factor * m.down, factor * m.right, factor * m.down_right};
}

// Sums of q times each corner's weight.
template <class T>
FCNKERN_INLINE Corners<T> spread(const Block<T>& block, const Moments<T>& q) {
  const Vec<T> right = block.u0 * q.one + block.du * q.right;
  const Vec<T> down_right = block.u0 * q.down + block.du * q.down_right;
  const Vec<T> bottom = block.v0 * q.one + block.dv * q.down;
  const Vec<T> bottom_right = block.v0 * right + block.dv * down_right;
  const Vec<T> top_right = right - bottom_right;
  return {q.one - bottom - top_right, top_right, bottom - bottom_right, bottom_right};
}

// Labels of a block, several to a 32-bit word: label r of row v lies in word (v, r / kPerWord) of its lane.
// kNone fills pixels that do not count: ignored, dropped or past the cell's end.
template <class L>
struct BlockLabels {
  static constexpr L kNone = static_cast<L>(-1);
  static constexpr int kBits = 8 * sizeof(L);
  static constexpr int kPerWord = 32 / kBits;
  static constexpr int kWords = kCellPixels / kPerWord;  // to a row

  const uint32_t* words;  // [(v * kWords + word) * stride + lane]
  int64_t stride;

  VecI word(int v, int i) const {
    return load(reinterpret_cast<const int32_t*>(words + (v * kWords + i) * stride));
  }
  VecI label_at(int v, int r) const { return (word(v, r / kPerWord) >> (kBits * (r % kPerWord))) & kNone; }
};

// Memory that will be read soon, fetched into the second-level cache a few lines at a time between
// arithmetic: all at once, the fetches would wait for each other.
struct Ahead {
  static constexpr int64_t kLine = 64;

  const char* next = nullptr;
  int64_t bytes = 0;  // left, from `next` on
  int64_t step = 0;
  const char* scores = nullptr;  // of a block's points, one row further down than it reads; of class 0
  int64_t class_bytes = 0;

  void divide(int64_t parts) { step = (bytes / parts / kLine + 1) * kLine; }
  void fetch(int64_t c) {
    __builtin_prefetch(scores + c * class_bytes, 0, 2);
    for (int64_t i = 0; i < step && i < bytes; i += kLine) __builtin_prefetch(next + i, 0, 2);
    next += step;
    bytes -= step;
  }
};

// What the pixels of a block, of a strip or of all images add up to.
struct Totals {
  double loss = 0;
  double weight = 0;
  int64_t valid = 0;
  int64_t correct = 0;

  void add(const Totals& other) {
    loss += other.loss;
    weight += other.weight;
    valid += other.valid;
    correct += other.correct;
  }
};

// Factors of the loss of a pixel with label t:
// lse[t] * logsumexp(z) - hard[t] * z[t] - sum over c of soft[c] * z[c].
template <class T>
struct LossWeights {
  const T* lse;     // [class], 0 at [classes] and at kNone of 8-bit labels
  const T* hard;    // [class]
  const T* soft;    // [class]; null without label smoothing
  const T* weight;  // [class], class weights
  bool uniform;     // lse and weight are 1 for every class
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
