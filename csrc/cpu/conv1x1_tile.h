// One tile of a 1x1 convolution's product, for conv1x1 itself and for the skip that upsample_add scores
// inside.
#pragma once

#include "conv1x1.h"
#include "dots.h"
#include "gemm.h"

namespace fcnkern::FCNKERN_ISA {

template <class T>
FCNKERN_INLINE void scale_values(T* values, int64_t count, T factor) {
  if (factor == T{1}) return;
  for (int64_t i = 0; i < count; ++i) values[i] *= factor;
}

// The weights of the next panel, for the second-level cache.
FCNKERN_INLINE void prefetch_rows(const TensorView& matrix, int64_t offset, int64_t row_stride, int rows) {
  const char* at = static_cast<const char*>(matrix.data) + offset * size_of(matrix.dtype);
  for (int r = 0; r < rows; ++r) __builtin_prefetch(at + r * row_stride * size_of(matrix.dtype), 0, 2);
}

// What to fetch of `count` columns of features. Rows of a crop have gaps between them, spread here over the pixels.
FCNKERN_INLINE Ahead features_ahead(const TensorView& x, const Pixels& pixels, int64_t k, int64_t pixel, int count) {
  if (count < 2) return kNothingAhead;
  const int64_t size = size_of(x.dtype), begin = pixels.offset(pixel), last = pixels.offset(pixel + count - 1);
  return block_ahead(static_cast<const char*>(x.data) + (begin + k * x.stride[1]) * size, x.stride[1] * size,
                     (last - begin) * size / (count - 1), count, size);
}

// Features read where they lie are read once for each panel of rows; with so few rows that costs less than packing.
// Measured: 1.2 times as fast for 21 outputs of 512 inputs, 1.06 times for 64, no faster for 150.
constexpr int kMostUnpacked = 64;

// The next columns for multiply_tile: whole registers of one run of pixels, or one register of several runs.
template <class T>
FCNKERN_INLINE ColumnBlock<T> run_of_columns(const TensorView& x, const Pixels& pixels, int64_t k, int64_t pixel,
                                             int64_t left) {
  const int64_t run = least(least(left, kPackColumns), pixels.width - pixel % pixels.width);
  const int64_t whole = run / kRegister<T> * kRegister<T>;
  if (whole == 0) return {static_cast<int>(least(kRegister<T>, left)), nullptr, 0};
  return {static_cast<int>(whole), static_cast<const T*>(x.data) + pixels.offset(pixel) + k * x.stride[1],
          x.stride[1]};
}

// One register of columns, the first `length` from `first` on and the others from `second` on, for each of `depth`
// channels. Both are read as whole registers: from the start of the one to the end of the other.
template <class T>
void join_runs(const T* first, const T* second, int length, int64_t plane, int depth, T* target) {
  using Register = typename RegisterOf<T>::Unaligned;
  decltype(Register{} < Register{}) is_first;
  for (int lane = 0; lane < kRegister<T>; ++lane) is_first[lane] = lane < length ? -1 : 0;
  second -= length;
  for (int k = 0; k < depth; ++k, first += plane, second += plane, target += kPackColumns)
    *reinterpret_cast<Register*>(target) = is_first ? *reinterpret_cast<const Register*>(first)
                                                    : *reinterpret_cast<const Register*>(second);
}

// Most pixels of a tile. With channels side by side a tile's pixels are read once for each panel of channels,
// so they should stay near.
FCNKERN_INLINE int64_t near_pixels(const TensorView& x) {
  return x.stride[1] == 1 ? 512 : Tiling::kTileElements;
}

// Dots read features as they lie, and add up their lanes in the end: the fewer outputs and the more inputs, the
// better. Measured: twice as fast for 21 outputs of 512 inputs, 5 % slower for 48 of 256.
constexpr int64_t kMostDotted = 40, kLeastDotInputs = 256;

// Numbers that add_conv1x1 works on beside its accumulator, for up to so many outputs.
FCNKERN_INLINE int64_t conv1x1_work(int64_t rows) {
  return most((least(rows, kMostDotted) + kDotColumns) * kDotLength, (rows + kPackColumns) * kDepth);
}

// As add_conv1x1, where the channels of features and weights lie side by side, and outputs are few.
template <class T>
void add_conv1x1_by_dots(const Conv1x1Params& p, const Pixels& pixels, int64_t first_row, int rows,
                         int64_t first_pixel, int64_t count, T* acc, int64_t acc_stride, T* work) {
  const auto load_a = [&](int64_t k, int length, T* target) {
    load_block<T>(p.weight.dtype, p.weight.data, first_row * p.weight.stride[0] + k, p.weight.stride[0], 1, rows,
                  length, target, kDotLength);
    scale_values(target, int64_t{rows} * kDotLength, static_cast<T>(p.scale));
  };
  const auto load_b = [&](int64_t k, int length, int64_t column, int n, T* target) {
    pixels.for_each_run(first_pixel + column, n, [&](int64_t offset, int64_t done, int64_t run) {
      load_block<T>(p.x.dtype, p.x.data, offset + k, pixels.stride_x, 1, static_cast<int>(run), length,
                    target + done * kDotLength, kDotLength);
    });
  };
  const auto where = [&](int64_t k, int, int64_t column) {
    const int64_t pixel = first_pixel + column;
    const bool ready = is_type<T>(p.x.dtype) && pixel % pixels.width + kDotColumns <= pixels.width;
    return DotColumns<T>{ready ? static_cast<const T*>(p.x.data) + pixels.offset(pixel) + k : nullptr,
                         pixels.stride_x};
  };
  const auto ahead = [&](int64_t k, int, int64_t column) {
    const int64_t size = size_of(p.x.dtype), pixel = least(first_pixel + column, first_pixel + count - 1);
    return ColumnsAhead{static_cast<const char*>(p.x.data) + (pixels.offset(pixel) + k) * size,
                        kRegister<T> * size, pixels.stride_x * size, 0};
  };
  multiply_by_dots<T>(rows, count, 0, p.inputs, load_a, load_b, where, ahead, acc, acc_stride, work,
                      work + int64_t{rows} * kDotLength);
}

// acc[o - first_row][p - first_pixel] += scale * sum over channels of weight[o][c] x[c][p], for `rows`
// outputs and `count` pixels. Features are read from memory once; those of the next block are prefetched.
template <class T>
void add_conv1x1(const Conv1x1Params& p, const Pixels& pixels, int64_t first_row, int rows,
                 int64_t first_pixel, int64_t count, T* acc, int64_t acc_stride, T* work) {
  if (p.x.stride[1] == 1 && p.weight.stride[1] == 1 && rows <= kMostDotted && p.inputs >= kLeastDotInputs)
    return add_conv1x1_by_dots(p, pixels, first_row, rows, first_pixel, count, acc, acc_stride, work);
  T *const a = work, *const b = work + int64_t{rows} * kDepth;
  const int64_t stride_o = p.weight.stride[0], stride_c = p.weight.stride[1], plane = p.x.stride[1];
  const auto load_a = [&](int64_t k, int depth, int m, int width, T* target) {
    if (stride_c == 1) prefetch_rows(p.weight, (first_row + m) * stride_o + k + depth, stride_o, width);
    load_block<T>(p.weight.dtype, p.weight.data, (first_row + m) * stride_o + k * stride_c, stride_c,
                  stride_o, depth, width, target, width);
    scale_values(target, int64_t{depth} * width, static_cast<T>(p.scale));
  };
  const bool ready = rows <= kMostUnpacked && is_type<T>(p.x.dtype) && pixels.stride_x == 1;
  const auto load_b = [&](int64_t k, int depth, int64_t column, int n, T* target) {
    const int64_t pixel = first_pixel + column, length = pixels.width - pixel % pixels.width;
    if (ready && n == kRegister<T> && length < n && n - length <= pixels.width) {
      const int64_t offset = pixels.offset(pixel), next = pixels.offset(pixel + length);
      const T* const features = static_cast<const T*>(p.x.data) + k * plane;
      if (next >= offset + length)
        return join_runs(features + offset, features + next, static_cast<int>(length), plane, depth, target);
    }
    pixels.for_each_run(pixel, n, [&](int64_t offset, int64_t done, int64_t run) {
      load_block<T>(p.x.dtype, p.x.data, offset + k * plane, plane, pixels.stride_x, depth,
                    static_cast<int>(run), target + done, kPackColumns);
    });
  };
  const auto where = [&](int64_t k, int64_t column, int64_t left) {
    return ready ? run_of_columns<T>(p.x, pixels, k, first_pixel + column, left) : PackAll<T>{}(k, column, left);
  };
  const auto ahead = [&](int64_t k, int64_t column, int n) {
    return features_ahead(p.x, pixels, k, first_pixel + column, n);
  };
  multiply_tile<T>(rows, count, 0, p.inputs, load_a, load_b, where, ahead, acc, acc_stride, a, b);
}

}  // namespace fcnkern::FCNKERN_ISA
