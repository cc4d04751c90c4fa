// Forward kernels of the transposed convolution with a cropped skip.
#pragma once

#include "upsample_add.cuh"

namespace fcnkern::cuda {
namespace {

constexpr int kChunk = 16;  // channels of weights in shared memory at a time
constexpr int kPair = 2;    // neighbouring output columns of a thread

// Where a thread's pair of outputs lies: two columns of one row, of neighbouring phases of one cell.
struct OutputPair {
  int image, first_channel, phase_y, phase_x, i, j, row, column;
  bool exists[kPair];
};

template <int CB>
__device__ __forceinline__ OutputPair output_pair(const Deconv& p, unsigned tiles, int blocks) {
  OutputPair o;
  const unsigned group = blockIdx.x / tiles, tile = blockIdx.x - group * tiles;
  o.image = static_cast<int>(group) / blocks;
  o.first_channel = (static_cast<int>(group) - o.image * blocks) * CB;
  const int pairs = (p.stride[1] + 1) / kPair;
  o.phase_y = blockIdx.y / pairs, o.phase_x = (blockIdx.y - o.phase_y * pairs) * kPair;
  const int columns = cells(p, 1);
  const int cell = static_cast<int>(tile) * kUpsampleThreads + threadIdx.x, down = cell / columns;
  o.i = p.begin[0] / p.stride[0] + down;
  o.j = p.begin[1] / p.stride[1] + cell - down * columns;
  o.row = o.i * p.stride[0] + o.phase_y - p.begin[0], o.column = o.j * p.stride[1] + o.phase_x - p.begin[1];
  const bool in_rows = o.row >= 0 && o.row < p.size[0];
#pragma unroll
  for (int k = 0; k < kPair; ++k)
    o.exists[k] = in_rows && o.column + k >= 0 && o.column + k < p.size[1] && o.phase_x + k < p.stride[1];
  return o;
}

// Adds a value times CB weights, which lie in shared memory.
template <int CB>
__device__ __forceinline__ void add_product(float value, const float4* weights, float (&sums)[CB]) {
#pragma unroll
  for (int c = 0; c < CB; c += 4) {
    const float4 four = weights[c / 4];
    sums[c] = fmaf(value, four.x, sums[c]), sums[c + 1] = fmaf(value, four.y, sums[c + 1]);
    sums[c + 2] = fmaf(value, four.z, sums[c + 2]), sums[c + 3] = fmaf(value, four.w, sums[c + 3]);
  }
}

// Brings the weights of kChunk channels, `count` of which exist, to shared memory: CB of them for each, `pitch` apart.
template <class T, int CB>
__device__ __forceinline__ void stage_weights(float* to, int pitch, const T* from, int64_t channel_step, int64_t output_step,
                                              int count, int outputs, float scale) {
  constexpr int kStep = kUpsampleThreads / kChunk;
  static_assert(CB % kStep == 0);
  const int k = threadIdx.x % kChunk, first = threadIdx.x / kChunk;
  from += k * channel_step + first * output_step, to += k * pitch + first;
#pragma unroll
  for (int c = 0; c < CB; c += kStep, from += kStep * output_step)
    to[c] = k < count && first + c < outputs ? scale * to_float(*from) : 0.0f;
}

// Adds the scores of the skip's features. All threads of the block take part.
template <class T, int CB>
__device__ __forceinline__ void add_scored_features(const UpsampleAdd& p, const OutputPair& o, float4* weights,
                                                    float (&sums)[kPair][CB]) {
  const int64_t step = p.skip.stride[1], weight_step = p.skip_weight.stride[1];
  const T* weight = static_cast<const T*>(p.skip_weight.data) + o.first_channel * p.skip_weight.stride[0];
  const T* skip = static_cast<const T*>(p.skip.data);
  int64_t at[kPair];  // where there is no output, of the first pixel
  bool together[kPair];
#pragma unroll
  for (int pixel = 0; pixel < kPair; ++pixel) {
    at[pixel] = o.exists[pixel] ? offset_of(p.skip, o.image, 0, o.row, o.column + pixel) : 0;
    together[pixel] = step == 1 && p.features % 4 == 0 && aligned_four(skip + at[pixel]);
  }
#pragma unroll 1
  for (int left = p.features; left > 0; left -= kChunk, weight += kChunk * weight_step) {
    __syncthreads();
    stage_weights<T, CB>(reinterpret_cast<float*>(weights), CB, weight, weight_step, p.skip_weight.stride[0], left,
                         p.deconv.outputs - o.first_channel, p.skip_scale);
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < min(kChunk, left); k += 4) {
      float values[kPair][4];
#pragma unroll
      for (int pixel = 0; pixel < kPair; ++pixel) {
        load_channels(skip + at[pixel], step, together[pixel], left - k, values[pixel]);
        at[pixel] += 4 * step;
      }
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int pixel = 0; pixel < kPair; ++pixel)
          add_product<CB>(values[pixel][m], weights + (k + m) * (CB / 4), sums[pixel]);
    }
  }
}

// Adds the dense transposed convolution: each tap is a product over the inputs with weights that the block shares.
template <class T, int CB>
__device__ __forceinline__ void add_dense(const Deconv& p, const OutputPair& o, float4* weights,
                                          float (&sums)[kPair][CB]) {
#pragma unroll 1
  for (int ky = o.phase_y, i = o.i; ky < p.kernel[0]; ky += p.stride[0], --i)
#pragma unroll 1
    for (int kx = o.phase_x, j = o.j; kx < p.kernel[1]; kx += p.stride[1], --j) {
      const bool reads = has_pixel(p, i, j) && (o.exists[0] || o.exists[1]);
      const int passing = opaque(reads ? -1 : 0);  // no branch, at which a warp would part
      const T* at = static_cast<const T*>(p.x.data) + (reads ? offset_of(p.x, o.image, 0, i, j) : 0);
      const T* weight = static_cast<const T*>(p.weight.data) + offset_of(p.weight, 0, o.first_channel, ky, kx);
#pragma unroll 1
      for (int left = p.inputs; left > 0; left -= kChunk, weight += kChunk * p.weight.stride[0]) {
        __syncthreads();
#pragma unroll
        for (int pixel = 0; pixel < kPair; ++pixel)
          stage_weights<T, CB>(reinterpret_cast<float*>(weights) + pixel * CB, kPair * CB, weight + pixel * p.weight.stride[3],
                               p.weight.stride[0], p.weight.stride[1], kx + pixel < p.kernel[1] ? left : 0,
                               p.outputs - o.first_channel, 1.0f);
        __syncthreads();
#pragma unroll 1
        for (int k = 0; k < min(kChunk, left); ++k, at += p.x.stride[1]) {
          const float value = __int_as_float(__float_as_int(to_float(*at)) & passing);
#pragma unroll
          for (int pixel = 0; pixel < kPair; ++pixel)
            add_product<CB>(value, weights + (kPair * k + pixel) * (CB / 4), sums[pixel]);
        }
      }
    }
}

// Adds a depthwise or bilinear transposed convolution.
template <class T, int CB>
__device__ __forceinline__ void add_own_channels(const Deconv& p, const OutputPair& o, float (&sums)[kPair][CB]) {
  const bool bilinear = p.kind == DeconvKind::kBilinear;
  for (int ky = o.phase_y, i = o.i; ky < p.kernel[0]; ky += p.stride[0], --i)
    for (int kx = o.phase_x, j = o.j; kx < p.kernel[1]; kx += p.stride[1], --j) {
      if (!has_pixel(p, i, j)) continue;
      const bool second = kx + 1 < p.kernel[1];
      const T* x = static_cast<const T*>(p.x.data) + offset_of(p.x, o.image, o.first_channel, i, j);
      const T* own = static_cast<const T*>(p.weight.data);
      if (!bilinear) own += offset_of(p.weight, o.first_channel, 0, ky, kx);
      float weight[kPair] = {0.0f, 0.0f};
      if (bilinear) {
        weight[0] = own_weight<T>(p, 0, ky, kx);
        weight[1] = second ? own_weight<T>(p, 0, ky, kx + 1) : 0.0f;
      }
#pragma unroll
      for (int c = 0; c < CB; ++c) {
        if (o.first_channel + c >= p.outputs) break;
        if (!bilinear) {
          weight[0] = to_float(own[0]), weight[1] = second ? to_float(own[p.weight.stride[3]]) : 0.0f;
          own += p.weight.stride[0];
        }
        const float value = to_float(*x);
        x += p.x.stride[1];
        sums[0][c] = fmaf(value, weight[0], sums[0][c]), sums[1][c] = fmaf(value, weight[1], sums[1][c]);
      }
    }
}

// Adds the skip's scores or the bias of its features, and writes one output.
template <class T, int CB>
__device__ __forceinline__ void write_output(const UpsampleAdd& p, const OutputPair& o, int pixel, const float (&sums)[CB]) {
  const int column = o.column + pixel;
  T* y = static_cast<T*>(p.deconv.y.data) + offset_of(p.deconv.y, o.image, o.first_channel, o.row, column);
  const bool scores = p.features == 0 && p.skip.data != nullptr, biased = p.features > 0 && p.skip_bias.data != nullptr;
  const T* skip = static_cast<const T*>(p.skip.data);
  if (scores) skip += offset_of(p.skip, o.image, o.first_channel, o.row, column);
  const T* bias = static_cast<const T*>(p.skip_bias.data);
  if (biased) bias += o.first_channel * p.skip_bias.stride[0];
#pragma unroll
  for (int c = 0; c < CB; ++c) {
    if (o.first_channel + c >= p.deconv.outputs) break;
    float value = sums[c];
    if (biased) value += to_float(*bias), bias += p.skip_bias.stride[0];
    if (scores) value = fmaf(p.skip_scale, to_float(*skip), value), skip += p.skip.stride[1];
    *y = from_float<T>(value);
    y += p.deconv.y.stride[1];
  }
}

// Transposed convolution plus skip, where a product over channels is in it: of a dense weight, or of the skip's features.
//
// A block takes 128 cells of one row phase and of two neighbouring column phases, so that all its threads use the same
// weights, which pass through shared memory; a thread keeps two outputs of CB channels in registers. Reads x (kernel /
// stride)^2 times, mostly from the caches, and of the skip the window once per block of channels; writes the output
// once. No exponentials. Bound by instructions: at 21 classes 49 of a thread for each feature of fp32, 1.7 times the
// time of reading it; 32 of them are multiply-adds.
template <class T, int CB>
__global__ void __launch_bounds__(kUpsampleThreads, kBlocksPerProcessor) upsample_add_product_fwd_kernel(const UpsampleAdd p, unsigned tiles, int blocks) {
  FCNKERN_SHARED(float4, weights, [kChunk * kPair * CB / 4]);
  const OutputPair o = output_pair<CB>(p.deconv, tiles, blocks);
  float sums[kPair][CB] = {};
  if (p.features > 0) add_scored_features<T, CB>(p, o, weights, sums);
  if (p.deconv.kind == DeconvKind::kDense) add_dense<T, CB>(p.deconv, o, weights, sums);
  else add_own_channels<T, CB>(p.deconv, o, sums);
  if (o.exists[0]) write_output<T, CB>(p, o, 0, sums[0]);
  if (o.exists[1]) write_output<T, CB>(p, o, 1, sums[1]);
}

}  // namespace
}  // namespace fcnkern::cuda
