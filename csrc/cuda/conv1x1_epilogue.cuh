// What follows the product of a 1x1 classifier (bias, ReLU, dropout), and what precedes it in the backward pass.
#pragma once

#include <cmath>

#include "conv1x1.h"
#include "conv1x1_pixels.cuh"
#include "philox.h"
#include "ptx.cuh"

namespace fcnkern::cuda {

struct Dropout {
  const uint64_t* seed;  // null: no dropout
  uint32_t last_dropped;
  float keep_scale;
  int64_t channels, plane;  // of the tensor whose elements are numbered, in N x C x H x W order
};

inline Dropout dropout_of(const Conv1x1Dropout& dropout, int64_t channels, int64_t plane) {
  if (dropout.p == 0) return {nullptr, 0, 1.f, channels, plane};
  const auto last_dropped = static_cast<uint32_t>(static_cast<uint64_t>(std::ceil(dropout.p * 4294967296.0)) - 1);
  return {dropout.seed, last_dropped, static_cast<float>(1 / (1 - dropout.p)), channels, plane};
}

// The number of the element of a pixel in channel 0.
__device__ __forceinline__ int64_t element_of(const Dropout& dropout, const Pixel& pixel) {
  return pixel.image * dropout.channels * dropout.plane + pixel.inside;
}

// Bit i: whether element elements[i] + first is kept. Neighbours mostly share a block of four words: it is formed anew
// only where it changes.
__device__ __forceinline__ unsigned kept_elements(const Dropout& dropout, const int64_t* elements, int64_t first) {
  const uint64_t key = *dropout.seed;
  uint64_t formed = ~uint64_t{0};
  PhiloxBlock words{};
  unsigned kept = 0;
#pragma unroll 1
  for (int i = 0; i < 4; ++i) {
    const auto element = static_cast<uint64_t>(elements[i] + first), block = element / 4;
    if (block != formed) {
      words = philox4x32(key, {{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 1}});
      formed = block;
    }
    const uint32_t low = element & 1 ? words.word[1] : words.word[0];
    const uint32_t high = element & 1 ? words.word[3] : words.word[2];
    kept |= ((element & 2 ? high : low) > dropout.last_dropped ? 1u : 0u) << i;
  }
  return kept;
}

template <class T>
struct Epilogue {
  const T* bias;  // null: none
  int64_t bias_stride;
  float scale;
  bool relu;
  Dropout dropout;
};

template <class T>
Epilogue<T> epilogue_of(const Conv1x1Params& p) {
  return {static_cast<const T*>(p.bias.data), p.bias.stride[0], static_cast<float>(p.scale), p.relu,
          dropout_of(p.dropout, p.size.outputs, p.size.height * p.size.width)};
}

// dropout(relu(scale * values + bias)) of four columns of a channel; NaN stays NaN.
template <class T>
__device__ __forceinline__ void finish(const Epilogue<T>& epilogue, int64_t channel, const int64_t* elements,
                                       float (&values)[4]) {
  const float bias = epilogue.bias == nullptr ? 0.f : to_float(epilogue.bias[channel * epilogue.bias_stride]);
  const float least = epilogue.relu ? 0.f : -INFINITY;
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = max_or_nan(values[i] * epilogue.scale + bias, least);
  if (epilogue.dropout.seed == nullptr) return;
  const unsigned kept = kept_elements(epilogue.dropout, elements, channel * epilogue.dropout.plane);
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = kept >> i & 1 ? values[i] * epilogue.dropout.keep_scale : 0.f;
}

constexpr int kPassRows = 64, kPassThreads = 256;

// The part of a tensor that a block of the kernels below takes: kColumns pixels of kPassRows channels.
struct PassTile {
  int64_t first_pixel, first_row;
  int pixels, rows;
};

__device__ __forceinline__ PassTile pass_tile(const PixelAxis& axis, int64_t channels) {
  const int64_t row_tiles = ceil_div<int64_t>(channels, kPassRows);
  const int64_t column_tile = blockIdx.x / row_tiles, row_tile = blockIdx.x - column_tile * row_tiles;
  PassTile tile{column_tile * kColumns, row_tile * kPassRows, 0, 0};
  tile.pixels = static_cast<int>(min(static_cast<int64_t>(kColumns), axis.count - tile.first_pixel));
  tile.rows = static_cast<int>(min(static_cast<int64_t>(kPassRows), channels - tile.first_row));
  return tile;
}

// Reads y and writes it, once: dropout(relu(scale * y + bias)). No exponentials; with dropout ten Philox rounds for four
// pixels (twice that where planes are no multiples of 4). Bound by instructions with dropout: 81 a 16-bit element, three
// times the time of DRAM.
template <class T>
__global__ void __launch_bounds__(kPassThreads)
    conv1x1_epilogue_kernel(PixelAxis axis, int64_t channels, Image<T> y, Epilogue<T> epilogue) {
  FCNKERN_SHARED(int64_t, y_at, [kColumns]);
  FCNKERN_SHARED(int64_t, element_at, [kColumns]);
  const PassTile tile = pass_tile(axis, channels);
  for (int i = threadIdx.x; i < tile.pixels; i += kPassThreads) {
    const Pixel pixel = pixel_of(axis, tile.first_pixel + i);
    y_at[i] = offset_of(pixel, y.pixel), element_at[i] = element_of(epilogue.dropout, pixel);
  }
  __syncthreads();
  for_each_group(tile.rows, tile.pixels, y.channels_fast, [&](int row, int group) {
    const int64_t channel = tile.first_row + row;
    const int column = 4 * group, count = tile.pixels - column;
    float values[4];
    load_group(y, channel, y_at + column, count, values);
    finish(epilogue, channel, element_at + column, values);
    store_group(y, channel, y_at + column, count, values);
  });
}

// Reads grad and, where there was ReLU, the output; writes the gradient that passes. No exponentials; bound by DRAM, and
// without ReLU as the kernel above.
template <class T>
__global__ void __launch_bounds__(kPassThreads) conv1x1_mask_kernel(PixelAxis axis, int64_t channels, Image<T> grad,
                                                                    Image<T> y, Image<T> result, Dropout dropout) {
  FCNKERN_SHARED(int64_t, grad_at, [kColumns]);
  FCNKERN_SHARED(int64_t, result_at, [kColumns]);
  FCNKERN_SHARED(int64_t, other_at, [kColumns]);  // of the output, or numbers of elements
  const PassTile tile = pass_tile(axis, channels);
  for (int i = threadIdx.x; i < tile.pixels; i += kPassThreads) {
    const Pixel pixel = pixel_of(axis, tile.first_pixel + i);
    grad_at[i] = offset_of(pixel, grad.pixel), result_at[i] = offset_of(pixel, result.pixel);
    other_at[i] = y.data == nullptr ? element_of(dropout, pixel) : offset_of(pixel, y.pixel);
  }
  __syncthreads();
  for_each_group(tile.rows, tile.pixels, grad.channels_fast, [&](int row, int group) {
    const int64_t channel = tile.first_row + row;
    const int column = 4 * group, count = tile.pixels - column;
    float values[4];
    load_group(grad, channel, grad_at + column, count, values);
    if (y.data != nullptr) {
      float outputs[4];
      load_group(y, channel, other_at + column, count, outputs);
      for (int i = 0; i < 4; ++i) values[i] = outputs[i] <= 0 ? 0.f : values[i];
    } else {
      const unsigned kept = kept_elements(dropout, other_at + column, channel * dropout.plane);
      for (int i = 0; i < 4; ++i) values[i] = kept >> i & 1 ? values[i] : 0.f;
    }
    store_group(result, channel, result_at + column, count, values);
  });
}

}  // namespace fcnkern::cuda
