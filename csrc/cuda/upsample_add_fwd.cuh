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
  const int columns = p.size[1] / p.stride[1] + 2;  // cells of a row that may lie in the window
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

// Adds the scores of the skip's features. All threads of the block take part.
template <class T, int CB>
__device__ __forceinline__ void add_scored_features(const UpsampleAdd& p, const OutputPair& o, float (&weights)[kChunk * kPair * CB],
                                                    float (&sums)[kPair][CB]) {
  const T* skip = static_cast<const T*>(p.skip.data);
  const T* at[kPair];
#pragma unroll
  for (int k = 0; k < kPair; ++k)
    at[k] = skip + (o.exists[k] ? offset_of(p.skip, o.image, 0, o.row, o.column + k) : 0);
  for (int first = 0; first < p.features; first += kChunk) {
    __syncthreads();
    for (int k = threadIdx.x; k < kChunk * CB; k += kUpsampleThreads) {
      const int feature = first + k / CB, c = o.first_channel + k % CB;
      const bool there = feature < p.features && c < p.deconv.outputs;
      weights[k] = there ? p.skip_scale * element<T>(p.skip_weight, offset_of(p.skip_weight, c, feature, 0, 0)) : 0.0f;
    }
    __syncthreads();
    for (int k = 0; k < kChunk && first + k < p.features; k += 4) {
      float values[kPair][4] = {};
#pragma unroll
      for (int pixel = 0; pixel < kPair; ++pixel)
        if (o.exists[pixel]) load_channels(at[pixel], p.skip.stride[1], first + k, p.features, values[pixel]);
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int c = 0; c < CB; ++c) {
          const float weight = weights[(k + m) * CB + c];
          sums[0][c] = fmaf(values[0][m], weight, sums[0][c]);
          sums[1][c] = fmaf(values[1][m], weight, sums[1][c]);
        }
    }
  }
}

// Adds the dense transposed convolution: each tap is a product over the inputs with weights that the block shares.
template <class T, int CB>
__device__ __forceinline__ void add_dense(const Deconv& p, const OutputPair& o, float (&weights)[kChunk * kPair * CB],
                                          float (&sums)[kPair][CB]) {
  for (int ky = o.phase_y, i = o.i; ky < p.kernel[0]; ky += p.stride[0], --i)
    for (int kx = o.phase_x, j = o.j; kx < p.kernel[1]; kx += p.stride[1], --j) {
      const bool reads = has_pixel(p, i, j) && (o.exists[0] || o.exists[1]);
      const int64_t source = reads ? offset_of(p.x, o.image, 0, i, j) : 0;
      for (int first = 0; first < p.inputs; first += kChunk) {
        __syncthreads();
        for (int k = threadIdx.x; k < kChunk * kPair * CB; k += kUpsampleThreads) {
          const int input = first + k / (kPair * CB), pixel = k / CB % kPair, c = o.first_channel + k % CB;
          const bool there = input < p.inputs && c < p.outputs && kx + pixel < p.kernel[1];
          weights[k] = there ? element<T>(p.weight, offset_of(p.weight, input, c, ky, kx + pixel)) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < kChunk && first + k < p.inputs; ++k) {
          const float value = reads ? element<T>(p.x, source + (first + k) * p.x.stride[1]) : 0.0f;
#pragma unroll
          for (int c = 0; c < CB; ++c) {
            sums[0][c] = fmaf(value, weights[(kPair * k) * CB + c], sums[0][c]);
            sums[1][c] = fmaf(value, weights[(kPair * k + 1) * CB + c], sums[1][c]);
          }
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
// once. No exponentials. Bound by instructions: at 21 classes 91 of a thread for each feature of fp32, three times the
// time of reading it.
template <class T, int CB>
__global__ void __launch_bounds__(kUpsampleThreads, kBlocksPerProcessor) upsample_add_product_fwd_kernel(const UpsampleAdd p, unsigned tiles, int blocks) {
  FCNKERN_SHARED(float, weights, [kChunk * kPair * CB]);
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
