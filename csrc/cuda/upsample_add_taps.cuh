// Forward kernels of depthwise and bilinear transposed convolution plus skip scores: no product over channels.
#pragma once

#include "upsample_add.cuh"

namespace fcnkern::cuda {
namespace {

// How the threads that walk share the outputs: a thread has channels `apart` from each other, so that those of
// neighbouring threads are neighbours too. The steps in elements from one of them to the next are formed once, here.
struct Walk {
  bool channels_last;
  int band, apart;  // rows of outputs of a block; channels
  int64_t x_step, weight_step, skip_step, y_step;
};

// Where a thread's outputs lie: one column of one of the first `channels`, channels or columns side by side in a warp.
struct OutputColumn {
  int image, channel, column;

  __device__ __forceinline__ OutputColumn(const Deconv& d, int channels, int64_t index, bool channels_last) {
    const int inner = channels_last ? channels : d.size[1], outer = channels_last ? d.size[1] : channels;
    const int64_t line = index / inner;
    const int within = static_cast<int>(index - line * inner);
    image = static_cast<int>(line / outer);
    const int across = static_cast<int>(line - static_cast<int64_t>(image) * outer);
    channel = channels_last ? within : across, column = channels_last ? across : within;
  }
};

// The two points of x beside a thread's column, and what a row of x gives the outputs of that column; of all channels
// of the thread.
template <class T, bool kBilinear, int kChannels>
struct Points {
  const T* near;  // of row 0; the point to the right of the column
  const T* weight;  // of tap 0 of the column's phase
  int64_t row_step, left_step, channel_step, weight_step, weight_left_step, weight_channel_step;
  bool has_near, has_far;
  float near_weight, far_weight;  // of a bilinear kernel
  int height;

  __device__ __forceinline__ Points(const Deconv& d, const OutputColumn& at, const Walk& walk) : height(d.height) {
    const int x = at.column + d.begin[1], j = x / d.stride[1], kx = x - j * d.stride[1];
    has_near = j < d.width && kx < d.kernel[1], has_far = j >= 1 && j <= d.width && kx + d.stride[1] < d.kernel[1];
    near = static_cast<const T*>(d.x.data) + offset_of(d.x, at.image, at.channel, 0, j);
    row_step = d.x.stride[2], left_step = d.x.stride[3], channel_step = walk.x_step;
    if constexpr (kBilinear) {
      const Tent tent(d, 1);
      near_weight = tent(kx), far_weight = tent(kx + d.stride[1]);
    } else {
      weight = static_cast<const T*>(d.weight.data) + offset_of(d.weight, at.channel, 0, 0, kx);
      weight_step = d.weight.stride[2], weight_left_step = d.stride[1] * d.weight.stride[3];
      weight_channel_step = walk.weight_step;
    }
  }

  // The points of a row of x, 0 where there is none; of a bilinear kernel their blend alone.
  struct Row {
    float near, far;
  };
  __device__ __forceinline__ void read_row(int i, int channels, Row (&rows)[kChannels]) const {
    const bool there = i >= 0 && i < height;
    const T* at = near + i * row_step;
#pragma unroll
    for (int c = 0; c < kChannels; ++c, at += channel_step) {
      const float right = there && has_near && c < channels ? to_float(*at) : 0.0f;
      const float left = there && has_far && c < channels ? to_float(*(at - left_step)) : 0.0f;
      if constexpr (kBilinear) rows[c] = {fmaf(near_weight, right, has_far ? far_weight * left : 0.0f), 0.0f};
      else rows[c] = {right, left};
    }
  }
  // The row's part of the outputs at tap ky. A tap without a point counts for nothing, also where its weight is not finite.
  __device__ __forceinline__ float depthwise(const Row& row, int c, int i, int ky) const {
    if (i < 0 || i >= height) return 0.0f;
    const T* at = weight + c * weight_channel_step + ky * weight_step;
    const float sum = has_near ? to_float(*at) * row.near : 0.0f;
    return has_far ? fmaf(to_float(at[weight_left_step]), row.far, sum) : sum;
  }
};

// Kernels of at most two taps an axis. A thread owns a column of at most kChannels channels and walks down rows of
// outputs; the two points of a row of x are read once and serve the outputs of two strides, what depends on the row alone
// is formed once for all channels. Reads x from the caches, a depthwise weight twice an output from the caches, the skip
// once; writes the output once. No exponentials. Bound by those bytes with bilinear weights: 15
// instructions an output of x8 upsampling of 21 channels in fp32 take half of their time.
template <class T, bool kBilinear, int kChannels>
__global__ void __launch_bounds__(kUpsampleThreads) upsample_add_walk_fwd_kernel(const UpsampleAdd p, const Walk walk) {
  const Deconv& d = p.deconv;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kUpsampleThreads + threadIdx.x;
  const OutputColumn at(d, walk.apart, index, walk.channels_last);
  if (at.image >= d.images) return;
  const int channels = ceil_div(d.outputs - at.channel, walk.apart);  // that exist
  const int begin = blockIdx.y * walk.band, end = min(begin + walk.band, d.size[0]);
  const int stride = d.stride[0], kernel = d.kernel[0];
  int i = (begin + d.begin[0]) / stride, ky = begin + d.begin[0] - i * stride;
  const Points<T, kBilinear, kChannels> points(d, at, walk);
  typename Points<T, kBilinear, kChannels>::Row above[kChannels], here[kChannels];
  points.read_row(i - 1, channels, above);
  const Tent tent(d, 0);
  T* out = static_cast<T*>(d.y.data) + offset_of(d.y, at.image, at.channel, begin, at.column);
  const T* skip = static_cast<const T*>(p.skip.data) + offset_of(p.skip, at.image, at.channel, 0, at.column);
#pragma unroll 1
  for (int row = begin; row < end; ky = 0, ++i) {
    points.read_row(i, channels, here);
    const int last = min(end, row + stride - ky);
    float phase = ky;
#pragma unroll 1
    for (; row < last; ++row, ++ky, phase += 1.0f, out += d.y.stride[2]) {
      const bool has_second = ky + stride < kernel;
      const float weight = fmaf(phase, tent.slope, tent(0));
      float sums[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if constexpr (kBilinear) {
          sums[c] = weight * here[c].near;
          if (has_second) sums[c] = fmaf(1.0f - weight, above[c].near, sums[c]);
        } else if (c < channels) {
          sums[c] = ky < kernel ? points.depthwise(here[c], c, i, ky) : 0.0f;
          if (has_second) sums[c] += points.depthwise(above[c], c, i - 1, ky + stride);
        }
      }
      if (p.skip.data != nullptr) {
        const T* beside = skip + row * p.skip.stride[2];
#pragma unroll
        for (int c = 0; c < kChannels; ++c, beside += walk.skip_step)
          if (c < channels) sums[c] = fmaf(p.skip_scale, to_float(*beside), sums[c]);
      }
      T* to = out;
#pragma unroll
      for (int c = 0; c < kChannels; ++c, to += walk.y_step)
        if (c < channels) *to = from_float<T>(sums[c]);
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) above[c] = here[c];
  }
}

// Kernels of any size: a thread an output. Reads x (kernel / stride)^2 times and as many weights, from the caches, and the
// skip once; writes the output once. No exponentials. Bound by instructions, about 40 a tap of a
// depthwise weight.
template <class T>
__global__ void __launch_bounds__(kUpsampleThreads) upsample_add_taps_fwd_kernel(const UpsampleAdd p, bool channels_last) {
  const Deconv& d = p.deconv;
  const OutputColumn at(d, d.outputs, static_cast<int64_t>(blockIdx.x) * kUpsampleThreads + threadIdx.x, channels_last);
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
