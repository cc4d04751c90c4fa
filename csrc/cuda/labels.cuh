// Label maps of any integer type, and the report of a label that is neither a class nor ignored.
#pragma once

#include "kernel.cuh"
#include "labels.h"

namespace fcnkern::cuda {

// The types' codes are the binary logarithms of their sizes.
__host__ __device__ constexpr int label_bytes(LabelType type) { return 1 << static_cast<int>(type); }

__device__ __forceinline__ int64_t label_at(const void* data, LabelType type, int64_t place) {
  switch (type) {
    case LabelType::kU8: return static_cast<const uint8_t*>(data)[place];
    case LabelType::kI16: return static_cast<const int16_t*>(data)[place];
    case LabelType::kI32: return static_cast<const int32_t*>(data)[place];
    default: return static_cast<const int64_t*>(data)[place];
  }
}

__device__ __forceinline__ const void* label_address(const void* data, LabelType type, int64_t place) {
  return static_cast<const char*>(data) + place * label_bytes(type);
}

// Three words in pinned host memory: 1 + index of the pixel (n * H + y) * W + x, the label, and a claim by which only
// one thread writes the other two. fcnkern/backends/_labels.py reads and clears them.
struct LabelReport {
  unsigned long long* words;

  __device__ void tell(int64_t pixel, int64_t label) const {
    if (atomicCAS(words + 2, 0ull, 1ull) != 0) return;
    words[1] = static_cast<unsigned long long>(label);
    __threadfence_system();
    words[0] = static_cast<unsigned long long>(pixel + 1);
  }
};

}  // namespace fcnkern::cuda
