// Device code that the kernels of the transposed convolution share.
#pragma once

#include "elements.cuh"
#include "ptx.cuh"
#include "upsample_add.h"

namespace fcnkern::cuda {

constexpr int kUpsampleThreads = 128;
constexpr int kBlocksPerProcessor = 3;  // of the products, whose sums then stay in registers

template <class T>
__device__ __forceinline__ float element(const TensorView& t, int64_t offset) {
  return to_float(static_cast<const T*>(t.data)[offset]);
}

template <class T>
__device__ __forceinline__ void set_element(const TensorView& t, int64_t offset, float value) {
  static_cast<T*>(t.data)[offset] = from_float<T>(value);
}

__device__ __forceinline__ int64_t offset_of(const TensorView& t, int a, int b, int c, int d) {
  return a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3];
}

// Caffe's bilinear kernel along an axis.
struct Tent {
  float centre, slope;

  __device__ __forceinline__ Tent(const Deconv& p, int axis)
      : centre(0.5f * (p.kernel[axis] - 1)), slope(1.0f / p.stride[axis]) {}
  __device__ __forceinline__ float operator()(int k) const { return fmaf(-fabsf(k - centre), slope, 1.0f); }
};

// A weight of a depthwise or bilinear convolution.
template <class T>
__device__ __forceinline__ float own_weight(const Deconv& p, int c, int ky, int kx) {
  if (p.kind == DeconvKind::kBilinear) return Tent(p, 0)(ky) * Tent(p, 1)(kx);
  return element<T>(p.weight, offset_of(p.weight, c, 0, ky, kx));
}

__device__ __forceinline__ bool has_pixel(const Deconv& p, int i, int j) {
  return i >= 0 && i < p.height && j >= 0 && j < p.width;
}

// Cells of an axis, each of `stride` outputs, that have some in the window.
__host__ __device__ inline int cells(const Deconv& p, int axis) {
  return (p.begin[axis] + p.size[axis] - 1) / p.stride[axis] - p.begin[axis] / p.stride[axis] + 1;
}

template <class T>
__device__ __forceinline__ bool aligned_four(const T* at) {
  return reinterpret_cast<uintptr_t>(at) % (4 * sizeof(T)) == 0;
}

// Four consecutive channels, of which `left` exist; one load where they all do and lie `together`, aligned.
template <class T>
__device__ __forceinline__ void load_channels(const T* at, int64_t step, bool together, int left, float (&out)[4]) {
  struct alignas(4 * sizeof(T)) Four {
    T value[4];
  };
  if (together) {
    const Four four = *reinterpret_cast<const Four*>(at);
#pragma unroll
    for (int k = 0; k < 4; ++k) out[k] = to_float(four.value[k]);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k, at += step) out[k] = k < left ? to_float(*at) : 0.0f;
}

}  // namespace fcnkern::cuda
