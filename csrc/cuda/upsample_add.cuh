// Device code that the kernels of the transposed convolution share.
#pragma once

#include "elements.cuh"
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

// Four consecutive channels from `first` on, of which `channels` exist; one load where they lie together.
template <class T>
__device__ __forceinline__ void load_channels(const T* at, int64_t stride, int first, int channels, float (&out)[4]) {
  struct alignas(4 * sizeof(T)) Four {
    T value[4];
  };
  const T* own = at + first * stride;
  if (stride == 1 && first + 4 <= channels && reinterpret_cast<uintptr_t>(own) % sizeof(Four) == 0) {
    const Four four = *reinterpret_cast<const Four*>(own);
#pragma unroll
    for (int k = 0; k < 4; ++k) out[k] = to_float(four.value[k]);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) out[k] = first + k < channels ? to_float(own[k * stride]) : 0.0f;
}

}  // namespace fcnkern::cuda
