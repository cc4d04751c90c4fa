// Gradients of the transposed convolution, gathered: each block owns what it writes.
#pragma once

#include "block_sum.cuh"
#include "upsample_add.cuh"

namespace fcnkern::cuda {
namespace {

constexpr int kGradChunk = 32;  // outputs' weights in shared memory at a time

// A window position of the output, or -1 where it lies outside the window.
__device__ __forceinline__ int window_place(const Deconv& p, int axis, int source, int k) {
  const int at = source * p.stride[axis] + k - p.begin[axis];
  return at >= 0 && at < p.size[axis] ? at : -1;
}

// Gradient of x for a dense weight: a thread keeps CB inputs of one pixel in registers; for each tap it reads the
// gradient of all outputs, coalesced up to the stride, and their weights from shared memory. Writes x's gradient once.
// Multiply-adds bound it. No exponentials.
template <class T, int CB>
__global__ void __launch_bounds__(kUpsampleThreads, kBlocksPerProcessor)
    upsample_add_dense_grad_x_kernel(const Deconv p, const TensorView grad_x, unsigned tiles, int blocks) {
  FCNKERN_SHARED(float, weights, [kGradChunk * CB]);
  const int group = static_cast<int>(blockIdx.x / tiles), image = group / blocks, first = (group - image * blocks) * CB;
  const int pixel = static_cast<int>(blockIdx.x - group * tiles) * kUpsampleThreads + threadIdx.x;
  const int i = pixel / p.width, j = pixel - i * p.width;
  float sums[CB] = {};
  for (int ky = 0; ky < p.kernel[0]; ++ky)
    for (int kx = 0; kx < p.kernel[1]; ++kx) {
      const int row = window_place(p, 0, i, ky), column = window_place(p, 1, j, kx);
      const bool reads = i < p.height && row >= 0 && column >= 0;
      const int64_t at = reads ? offset_of(p.y, image, 0, row, column) : 0;
      for (int from = 0; from < p.outputs; from += kGradChunk) {
        __syncthreads();
        for (int k = threadIdx.x; k < kGradChunk * CB; k += kUpsampleThreads) {
          const int output = from + k / CB, input = first + k % CB;
          const bool there = output < p.outputs && input < p.inputs;
          weights[k] = there ? element<T>(p.weight, offset_of(p.weight, input, output, ky, kx)) : 0.0f;
        }
        __syncthreads();
        if (!reads) continue;
        for (int k = 0; k < kGradChunk && from + k < p.outputs; ++k) {
          const float value = element<T>(p.y, at + (from + k) * p.y.stride[1]);
#pragma unroll
          for (int c = 0; c < CB; ++c) sums[c] = fmaf(value, weights[k * CB + c], sums[c]);
        }
      }
    }
  if (i >= p.height) return;
  T* at = static_cast<T*>(grad_x.data) + offset_of(grad_x, image, first, i, j);
#pragma unroll
  for (int c = 0; c < CB; ++c, at += grad_x.stride[1])
    if (first + c < p.inputs) *at = from_float<T>(sums[c]);
}

// The taps of an axis whose outputs lie in the window, for one point of x.
struct TapRange {
  int begin, end;

  __device__ __forceinline__ TapRange(const Deconv& p, int axis, int source) {
    const int first = source * p.stride[axis] - p.begin[axis];  // where tap 0 lies in the window
    begin = max(0, -first), end = min(p.kernel[axis], p.size[axis] - first);
  }
};

// The same for a depthwise or bilinear weight: a thread an element, in the order of the kernel's taps. Reads the gradient
// (kernel / stride)^2 times, mostly from the caches. Bound by instructions, a handful for each tap.
template <class T, bool kBilinear>
__global__ void __launch_bounds__(kUpsampleThreads) upsample_add_taps_grad_x_kernel(const Deconv p, const TensorView grad_x) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kUpsampleThreads + threadIdx.x;
  const int64_t line = index / p.width;
  const int j = static_cast<int>(index - line * p.width), i = static_cast<int>(line % p.height);
  const int c = static_cast<int>(line / p.height % p.inputs), image = static_cast<int>(line / p.height / p.inputs);
  if (image >= p.images) return;
  const TapRange rows(p, 0, i), columns(p, 1, j);
  const Tent down(p, 0), across(p, 1);
  const int first_row = i * p.stride[0] - p.begin[0] + rows.begin, first_column = j * p.stride[1] - p.begin[1] + columns.begin;
  const T* grad = static_cast<const T*>(p.y.data) + offset_of(p.y, image, c, first_row, first_column);
  const T* weight = static_cast<const T*>(p.weight.data);
  if constexpr (!kBilinear) weight += offset_of(p.weight, c, 0, rows.begin, columns.begin);
  float sum = 0.0f;
  for (int ky = rows.begin; ky < rows.end; ++ky, grad += p.y.stride[2]) {
    const T *of_row = grad, *tap = weight;
    float total = kBilinear ? 0.0f : sum;
    for (int kx = columns.begin; kx < columns.end; ++kx, of_row += p.y.stride[3]) {
      total = fmaf(to_float(*of_row), kBilinear ? across(kx) : to_float(*tap), total);
      if constexpr (!kBilinear) tap += p.weight.stride[3];
    }
    sum = kBilinear ? fmaf(down(ky), total, sum) : total;
    if constexpr (!kBilinear) weight += p.weight.stride[2];
  }
  set_element<T>(grad_x, offset_of(grad_x, image, c, i, j), sum);
}

// Gradient of a weight: a block owns a tap and CB x CB pairs of input and output (dense), or a tap and a channel
// (depthwise, CB = 1), sums over the pixels of one part of the images, each thread its own, then over the threads in a
// fixed order. Reads x and the gradient once per tap and block of channels, from the caches where they fit. Multiply-adds
// bound it where it is dense, else the reading. No exponentials.
template <class T, int CB>
__global__ void __launch_bounds__(kUpsampleThreads)
    upsample_add_grad_weight_kernel(const Deconv p, float* partials, int parts, int input_blocks, int output_blocks) {
  const bool dense = p.kind == DeconvKind::kDense;
  const int taps = p.kernel[0] * p.kernel[1];
  int rest = blockIdx.x;
  const int tap = rest % taps;
  rest /= taps;
  const int first_output = rest % output_blocks * CB;
  rest /= output_blocks;
  const int first_input = rest % input_blocks * CB, part = rest / input_blocks;
  const int ky = tap / p.kernel[1], kx = tap - ky * p.kernel[1];
  const int64_t pixels = static_cast<int64_t>(p.images) * p.height * p.width;
  const int64_t begin = pixels * part / parts, end = pixels * (part + 1) / parts;
  float sums[CB][CB] = {};
  for (int64_t pixel = begin + threadIdx.x; pixel < end; pixel += kUpsampleThreads) {
    const int64_t line = pixel / p.width;
    const int j = static_cast<int>(pixel - line * p.width), i = static_cast<int>(line % p.height);
    const int image = static_cast<int>(line / p.height);
    const int row = window_place(p, 0, i, ky), column = window_place(p, 1, j, kx);
    if (row < 0 || column < 0) continue;
    float x[CB], y[CB];
#pragma unroll
    for (int c = 0; c < CB; ++c) {
      const int input = dense ? first_input + c : first_output;
      x[c] = input < p.inputs ? element<T>(p.x, offset_of(p.x, image, input, i, j)) : 0.0f;
      y[c] = first_output + c < p.outputs ? element<T>(p.y, offset_of(p.y, image, first_output + c, row, column)) : 0.0f;
    }
#pragma unroll
    for (int a = 0; a < CB; ++a)
#pragma unroll
      for (int b = 0; b < CB; ++b) sums[a][b] = fmaf(x[a], y[b], sums[a][b]);
  }
  const int64_t outputs = dense ? p.outputs : 1, size = static_cast<int64_t>(p.inputs) * outputs * taps;
#pragma unroll
  for (int a = 0; a < CB; ++a)
#pragma unroll
    for (int b = 0; b < CB; ++b) {
      const float total = block_sum<kUpsampleThreads>(sums[a][b]);
      const int input = dense ? first_input + a : first_output, output = dense ? first_output + b : 0;
      if (threadIdx.x == 0 && input < p.inputs && output < outputs)
        partials[part * size + (input * outputs + output) * taps + tap] = total;
    }
}

}  // namespace
}  // namespace fcnkern::cuda
