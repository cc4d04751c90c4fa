// The pixels of a batch as one row of N * H * W, whatever the strides of the tensors.
#pragma once

#include "elements.cuh"
#include "views.h"

namespace fcnkern::cuda {

constexpr int kColumns = 128;  // of a block's tile: pixels or, in a weight's gradient, channels

struct PixelAxis {
  int64_t count, plane, width;
};

struct PixelStrides {
  int64_t image, row, column;
};

struct Pixel {
  int64_t image, inside, row, column;
};

__device__ __forceinline__ Pixel pixel_of(const PixelAxis& axis, int64_t number) {
  Pixel pixel;
  pixel.image = number / axis.plane, pixel.inside = number - pixel.image * axis.plane;
  pixel.row = pixel.inside / axis.width, pixel.column = pixel.inside - pixel.row * axis.width;
  return pixel;
}

__device__ __forceinline__ int64_t offset_of(const Pixel& pixel, const PixelStrides& strides) {
  return pixel.image * strides.image + pixel.row * strides.row + pixel.column * strides.column;
}

// An N x C x H x W tensor. Its neighbouring pixels or channels lie together in runs of `run`, aligned to run * sizeof(T)
// bytes from each multiple of `run` on.
template <class T>
struct Image {
  T* data;
  PixelStrides pixel;
  int64_t channel;
  bool channels_fast;  // whether the runs are of channels
  int run_log;
};

inline bool aligned(const TensorView& view, int64_t run_bytes) {
  return reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(run_bytes) == 0;
}

// The image of a view, with runs of at most `longest` elements, a power of two.
template <class T>
Image<T> image_of(const TensorView& view, int64_t channels, int64_t height, int64_t width, int longest) {
  const int64_t *stride = view.stride, plane = height * width;
  const bool merged = height == 1 || width == 1 || stride[2] == width * stride[3];
  const int64_t unit = width > 1 ? stride[3] : stride[2];
  const bool channels_fast = stride[1] == 1 && channels > 1 && (unit != 1 || plane == 1);
  const auto holds = [&](int64_t run) {
    if (!aligned(view, run * static_cast<int64_t>(sizeof(T)))) return false;
    if (channels_fast)
      return channels % run == 0 && stride[0] % run == 0 && stride[2] % run == 0 && stride[3] % run == 0;
    const int64_t length = merged ? plane : width;
    return unit == 1 && length % run == 0 && stride[0] % run == 0 && stride[1] % run == 0 &&
           (merged || stride[2] % run == 0);
  };
  int run_log = 0;
  while ((2 << run_log) <= longest && holds(2 << run_log)) ++run_log;
  return {static_cast<T*>(view.data), {stride[0], stride[2], stride[3]}, stride[1], channels_fast, run_log};
}

template <class T>
constexpr int kWidestRun = 16 / sizeof(T);

// Calls run(row, group) for each row and each group of four of a tile's columns, neighbouring threads taking neighbours
// of the axis that lies together in memory.
template <class Run>
__device__ __forceinline__ void for_each_group(int rows, int columns, bool rows_fast, Run run) {
  const int groups = ceil_div(columns, 4), lines = rows_fast ? groups : rows, line_length = rows_fast ? rows : groups;
#pragma unroll 1
  for (int line = threadIdx.x / kWarp; line < lines; line += blockDim.x / kWarp)
#pragma unroll 1
    for (int i = threadIdx.x % kWarp; i < line_length; i += kWarp) run(rows_fast ? i : line, rows_fast ? line : i);
}

// Four neighbouring columns of one channel; `at` holds their offsets. Columns from `count` on are not touched.
template <class T>
__device__ __forceinline__ void load_group(const Image<T>& image, int64_t channel, const int64_t* at, int count,
                                           float (&values)[4]) {
  const T* base = image.data + channel * image.channel;
  if (!image.channels_fast && image.run_log >= 2) {
    alignas(4 * sizeof(T)) T four[4];
    using Word = std::conditional_t<sizeof(T) == 4, uint4, uint2>;
    *reinterpret_cast<Word*>(four) = *reinterpret_cast<const Word*>(base + at[0]);
    for (int i = 0; i < 4; ++i) values[i] = to_float(four[i]);
  } else {
    for (int i = 0; i < 4; ++i) values[i] = i < count ? to_float(base[at[i]]) : 0.f;
  }
}

template <class T>
__device__ __forceinline__ void store_group(const Image<T>& image, int64_t channel, const int64_t* at, int count,
                                            const float (&values)[4]) {
  T* base = image.data + channel * image.channel;
  if (!image.channels_fast && image.run_log >= 2) {
    alignas(4 * sizeof(T)) T four[4];
    using Word = std::conditional_t<sizeof(T) == 4, uint4, uint2>;
    for (int i = 0; i < 4; ++i) four[i] = from_float<T>(values[i]);
    *reinterpret_cast<Word*>(base + at[0]) = *reinterpret_cast<const Word*>(four);
  } else {
    for (int i = 0; i < 4; ++i)
      if (i < count) base[at[i]] = from_float<T>(values[i]);
  }
}

}  // namespace fcnkern::cuda
