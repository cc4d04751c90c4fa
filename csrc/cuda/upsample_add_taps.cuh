// Forward kernels of depthwise and bilinear transposed convolution plus skip scores: no product over channels.
#pragma once

#include "upsample_add.cuh"

namespace fcnkern::cuda {
namespace {

// Where a thread's outputs lie: one channel and column, channels or columns side by side in a warp.
struct OutputColumn {
  int image, channel, column;

  __device__ __forceinline__ OutputColumn(const Deconv& d, int64_t index, bool channels_last) {
    const int inner = channels_last ? d.outputs : d.size[1], outer = channels_last ? d.size[1] : d.outputs;
    const int64_t line = index / inner;
    const int within = static_cast<int>(index - line * inner);
    image = static_cast<int>(line / outer);
    const int across = static_cast<int>(line - static_cast<int64_t>(image) * outer);
    channel = channels_last ? within : across, column = channels_last ? across : within;
  }
};

// The two points of x beside a thread's column, and what a row of x gives the outputs of that column.
template <class T, bool kBilinear>
struct Points {
  const T* near;  // of row 0; the point to the right of the column
  const T* weight;  // of tap 0 of the column's phase
  int64_t row_step, left_step, weight_step, weight_left_step;
  bool has_near, has_far;
  float near_weight, far_weight;  // of a bilinear kernel
  int height;

  __device__ __forceinline__ Points(const Deconv& d, const OutputColumn& at) : height(d.height) {
    const int x = at.column + d.begin[1], j = x / d.stride[1], kx = x - j * d.stride[1];
    has_near = j < d.width && kx < d.kernel[1], has_far = j >= 1 && j <= d.width && kx + d.stride[1] < d.kernel[1];
    near = static_cast<const T*>(d.x.data) + offset_of(d.x, at.image, at.channel, 0, j);
    row_step = d.x.stride[2], left_step = d.x.stride[3];
    if constexpr (kBilinear) {
      const Tent tent(d, 1);
      near_weight = tent(kx), far_weight = tent(kx + d.stride[1]);
    } else {
      weight = static_cast<const T*>(d.weight.data) + offset_of(d.weight, at.channel, 0, 0, kx);
      weight_step = d.weight.stride[2], weight_left_step = d.stride[1] * d.weight.stride[3];
    }
  }

  // The points of a row of x, 0 where there is none; of a bilinear kernel their blend alone.
  struct Row {
    float near, far;
  };
  __device__ __forceinline__ Row row(int i) const {
    const bool there = i >= 0 && i < height;
    const T* at = near + i * row_step;
    const float right = there && has_near ? to_float(*at) : 0.0f;
    const float left = there && has_far ? to_float(*(at - left_step)) : 0.0f;
    if constexpr (kBilinear) return {fmaf(near_weight, right, has_far ? far_weight * left : 0.0f), 0.0f};
    else return {right, left};
  }
  // The row's part of the outputs at tap ky. A tap without a point counts for nothing, also where its weight is not finite.
  __device__ __forceinline__ float depthwise(const Row& row, int i, int ky) const {
    if (i < 0 || i >= height) return 0.0f;
    const T* at = weight + ky * weight_step;
    const float sum = has_near ? to_float(*at) * row.near : 0.0f;
    return has_far ? fmaf(to_float(at[weight_left_step]), row.far, sum) : sum;
  }
};

// Kernels of at most two taps an axis. A thread owns a column of one channel and walks down `band` rows of outputs; the two
// points of a row of x are read once and serve the outputs of two strides. Reads x from the caches, a depthwise weight twice
// an output from the caches, the skip once; writes the output once. No exponentials. Bound by those bytes with bilinear weights:
// 27 instructions an output of x8 upsampling in fp32 take nine tenths of their time.
template <class T, bool kBilinear>
__global__ void __launch_bounds__(kUpsampleThreads)
    upsample_add_walk_fwd_kernel(const UpsampleAdd p, bool channels_last, int band) {
  const Deconv& d = p.deconv;
  const OutputColumn at(d, static_cast<int64_t>(blockIdx.x) * kUpsampleThreads + threadIdx.x, channels_last);
  if (at.image >= d.images) return;
  const int begin = blockIdx.y * band, end = min(begin + band, d.size[0]);
  const int stride = d.stride[0], kernel = d.kernel[0];
  int i = (begin + d.begin[0]) / stride, ky = begin + d.begin[0] - i * stride;
  const Points<T, kBilinear> points(d, at);
  typename Points<T, kBilinear>::Row above = points.row(i - 1), here = points.row(i);
  const Tent tent(d, 0);
  T* out = static_cast<T*>(d.y.data) + offset_of(d.y, at.image, at.channel, begin, at.column);
  const T* skip = static_cast<const T*>(p.skip.data) + offset_of(p.skip, at.image, at.channel, begin, at.column);
  float phase = ky;
  for (int row = begin; row < end; ++row, out += d.y.stride[2], skip += p.skip.stride[2]) {
    const bool has_second = ky + stride < kernel;
    float sum;
    if constexpr (kBilinear) {
      const float weight = fmaf(phase, tent.slope, tent(0));
      sum = weight * here.near;
      if (has_second) sum = fmaf(1.0f - weight, above.near, sum);
    } else {
      sum = ky < kernel ? points.depthwise(here, i, ky) : 0.0f;
      if (has_second) sum += points.depthwise(above, i - 1, ky + stride);
    }
    if (p.skip.data != nullptr) sum = fmaf(p.skip_scale, to_float(*skip), sum);
    *out = from_float<T>(sum);
    ++ky, phase += 1.0f;
    if (ky == stride) {
      ky = 0, phase = 0.0f, ++i;
      above = here, here = points.row(i);
    }
  }
}

// Kernels of any size: a thread an output. Reads x (kernel / stride)^2 times and as many weights, from the caches, and the
// skip once; writes the output once. No exponentials. Bound by instructions, about 40 a tap of a
// depthwise weight.
template <class T>
__global__ void __launch_bounds__(kUpsampleThreads) upsample_add_taps_fwd_kernel(const UpsampleAdd p, bool channels_last) {
  const Deconv& d = p.deconv;
  const OutputColumn at(d, static_cast<int64_t>(blockIdx.x) * kUpsampleThreads + threadIdx.x, channels_last);
  if (at.image >= d.images) return;
  const int x = at.column + d.begin[1];
  for (int row = blockIdx.y; row < d.size[0]; row += gridDim.y) {
    const int y = row + d.begin[0];
    float sum = 0.0f;
    for (int ky = y % d.stride[0], i = y / d.stride[0]; ky < d.kernel[0]; ky += d.stride[0], --i)
      for (int kx = x % d.stride[1], j = x / d.stride[1]; kx < d.kernel[1]; kx += d.stride[1], --j)
        if (has_pixel(d, i, j))
          sum = fmaf(element<T>(d.x, offset_of(d.x, at.image, at.channel, i, j)), own_weight<T>(d, at.channel, ky, kx), sum);
    if (p.skip.data != nullptr)
      sum = fmaf(p.skip_scale, element<T>(p.skip, offset_of(p.skip, at.image, at.channel, row, at.column)), sum);
    set_element<T>(d.y, offset_of(d.y, at.image, at.channel, row, at.column), sum);
  }
}

}  // namespace
}  // namespace fcnkern::cuda
