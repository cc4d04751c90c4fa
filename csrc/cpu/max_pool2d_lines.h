// What pooling and its gradient share: which windows and elements meet, and maps as lines of numbers.
//
// A dense batch is `planes` of lines: N*C planes of W numbers a line, or in channels_last N planes of W*C.
#pragma once

#include "blocks.h"
#include "gemm.h"
#include "max_pool2d.h"
#include "scratch.h"
#include "simd.h"
#include "threads.h"

namespace fcnkern::FCNKERN_ISA {

// Winners of kLanes windows.
typedef uint8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

struct Range {
  int64_t first, last;  // without the last
};

// The elements of a window that lie inside the map.
FCNKERN_INLINE Range inside(const MaxPool2dParams& p, int axis, int64_t window) {
  const int64_t start = window * p.stride[axis] - p.padding[axis];
  return {most(0, -start), least(p.kernel[axis], p.size[axis] - start)};
}

// The windows that hold an element.
FCNKERN_INLINE Range windows_of(const MaxPool2dParams& p, int axis, int64_t element) {
  const int64_t end = element + p.padding[axis], before = end - p.kernel[axis];
  return {before < 0 ? 0 : before / p.stride[axis] + 1, least(p.out_size[axis], end / p.stride[axis] + 1)};
}

FCNKERN_INLINE int64_t plane_count(const MaxPool2dParams& p) {
  return p.channels_last ? p.images : p.images * p.channels;
}
// Numbers per pixel of a line.
FCNKERN_INLINE int64_t depth_of(const MaxPool2dParams& p) { return p.channels_last ? p.channels : 1; }

FCNKERN_INLINE int pool_threads(const MaxPool2dParams& p) {
  return worth_threads(p.threads, p.images * p.channels * (p.size[0] * p.size[1] + p.out_size[0] * p.out_size[1]));
}

// Lines of a dense map as numbers T: where they lie, or, of 16-bit types, the last few in widened copies.
template <class T>
class Lines {
 public:
  // `copies` has room for `slots` lines; null where the map holds T.
  Lines(DType dtype, const void* data, int64_t length, int64_t slots, T* copies)
      : dtype_(dtype), data_(data), length_(length), slots_(slots), copies_(copies) {
    for (int64_t slot = 0; slot < slots; ++slot) held_[slot] = -1;
  }

  const T* at(int64_t line) {
    if (copies_ == nullptr) return static_cast<const T*>(data_) + line * length_;
    const int64_t slot = line % slots_;
    T* const copy = copies_ + slot * length_;
    if (held_[slot] != line) {
      load_block<T>(dtype_, data_, line * length_, 0, 1, 1, static_cast<int>(length_), copy, 0);
      held_[slot] = line;
    }
    return copy;
  }

 private:
  const DType dtype_;
  const void* const data_;
  const int64_t length_, slots_;
  T* const copies_;
  int64_t held_[kNoWinner];
};

// Worker(params, room).run(line) for all lines: each thread has a worker, and room for it in the scratch memory.
template <class Worker>
void for_all_lines(const MaxPool2dParams& p, int64_t lines) {
  const int threads = pool_threads(p);
  Carver sizes;
  Worker::carve(p, sizes);
  Scratch scratch(sizes.used() * threads);
  const Shares shares(lines, threads);
  Turns turns(shares.count());
  on_threads(threads, [&](int thread) {
    Carver carver(scratch.data() + sizes.used() * thread);
    Worker worker(p, Worker::carve(p, carver));
    turns.take([&](int64_t share) {
      for (int64_t line = shares.begin(share); line < shares.end(share); ++line) worker.run(line);
    });
  });
}

}  // namespace fcnkern::FCNKERN_ISA
