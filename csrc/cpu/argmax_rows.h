// Labels of upsampled scores, handed out a few rows at a time and never stored as a whole.
#pragma once

#include <cstdint>

#include "upsample_argmax.h"

namespace fcnkern::FCNKERN_ISA {

constexpr int64_t kByteClasses = 254;  // up to these, labels come as bytes, then as 16-bit words

// Labels of the outputs x..x+width-1 of the rows y..y+rows-1 of image n.
struct LabelRows {
  int64_t n, y, x;
  int rows, width;
  char* labels;  // the sink may overwrite them
  int64_t row_bytes;
};

struct LabelSink {
  void (*take)(void* context, int thread, const LabelRows& rows);
  void* context;
};

struct ArgmaxJob {
  const Upsampling& upsampling;
  void* confidence;  // as in UpsampleArgmaxParams
  int threads;
  LabelSink sink;

  bool wide() const { return upsampling.scores.c > kByteClasses; }
};

// How many threads this much work is worth waking.
int argmax_threads(const Upsampling& upsampling, int threads);

// Calls the sink for every output exactly once, from `threads` threads.
void argmax_rows(const ArgmaxJob& job);

}  // namespace fcnkern::FCNKERN_ISA
