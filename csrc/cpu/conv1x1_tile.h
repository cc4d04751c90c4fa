// One tile of a 1x1 convolution's product, for conv1x1 itself and for the skip that upsample_add scores inside.
#pragma once

#include "conv1x1.h"
#include "gemm.h"

namespace fcnkern::FCNKERN_ISA {

template <class T>
FCNKERN_INLINE void scale_values(T* values, int64_t count, T factor) {
  if (factor == T{1}) return;
  for (int64_t i = 0; i < count; ++i) values[i] *= factor;
}

// acc[o - first_row][p - first_pixel] += scale * sum over channels of weight[o][c] x[c][p], for `rows` outputs and
// `count` pixels. Features are read once; what is read next is prefetched while a panel is copied.
template <class T>
void add_conv1x1(const Conv1x1Params& p, const Pixels& pixels, int64_t first_row, int rows, int64_t first_pixel,
                 int64_t count, T* acc, int64_t acc_stride, T* a, T* b) {
  const int64_t stride_o = p.weight.stride[0], stride_c = p.weight.stride[1], plane = p.x.stride[1];
  const auto load_a = [&](int64_t k, int depth, int m, int width, T* target) {
    load_block<T>(p.weight.dtype, p.weight.data, (first_row + m) * stride_o + k * stride_c, stride_c, stride_o, depth,
                  width, target, width);
    scale_values(target, int64_t{depth} * width, static_cast<T>(p.scale));
  };
  const auto load_b = [&](int64_t k, int depth, int64_t column, int n, T* target, NextBlock next) {
    const int64_t here = pixels.offset(first_pixel + column) + k * plane;
    const int64_t ahead = next.any ? pixels.offset(first_pixel + next.column) + next.k * plane - here : 0;
    pixels.for_each_run(first_pixel + column, n, [&](int64_t offset, int64_t done, int64_t length) {
      load_block<T>(p.x.dtype, p.x.data, offset + k * plane, plane, pixels.stride_x, depth, static_cast<int>(length),
                    target + done, kPackColumns, ahead);
    });
  };
  multiply_tile<T>(rows, count, 0, p.inputs, load_a, load_b, acc, acc_stride, a, b);
}

}  // namespace fcnkern::FCNKERN_ISA
