// Rectangles of tensors of any type and strides, as dense rows of the accumulation type T and back.
#pragma once

#include <cstdint>

#include "simd.h"
#include "views.h"

namespace fcnkern::FCNKERN_ISA {

// target[r * target_stride + c] = element `offset + r * row_stride + c * column_stride`.
// T = float reads fp32, bf16 and fp16; T = double reads fp64.
template <class T>
void load_block(DType dtype, const void* data, int64_t offset, int64_t row_stride, int64_t column_stride,
                int rows, int columns, T* target, int64_t target_stride);

// The reverse, rounded to nearest even.
template <class T>
void store_block(DType dtype, void* data, int64_t offset, int64_t row_stride, int64_t column_stride,
                 int64_t rows, int64_t columns, const T* source, int64_t source_stride);

// Zeros in columns [from, to) of every row.
template <class T>
FCNKERN_INLINE void clear_columns(T* block, int64_t stride, int64_t rows, int64_t from, int64_t to) {
  if (from == to) return;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = from; c < to; ++c) block[r * stride + c] = 0;
}

// Whether elements of this type are Ts as they lie.
template <class T>
FCNKERN_INLINE bool is_type(DType dtype) {
  return dtype == (sizeof(T) == 8 ? DType::kF64 : DType::kF32);
}

FCNKERN_INLINE int64_t size_of(DType dtype) {
  return dtype == DType::kF64 ? 8 : dtype == DType::kF32 ? 4 : 2;
}

// All pixels of a batch in one order (image, row, column), as runs of constant stride.
struct Pixels {
  int64_t height, width;
  int64_t stride_n, stride_y, stride_x;

  Pixels(const TensorView& image, int64_t h, int64_t w)
      : height(h), width(w), stride_n(image.stride[0]), stride_y(image.stride[2]), stride_x(image.stride[3]) {
    if (stride_y == w * stride_x) height = 1, width = h * w;
  }

  int64_t offset(int64_t pixel) const {
    const int64_t row = pixel / width;
    return row / height * stride_n + row % height * stride_y + pixel % width * stride_x;
  }

  // run(offset of the first pixel, how many pixels lie before it, length) for the pixels [first, first +
  // count).
  template <class Run>
  void for_each_run(int64_t first, int64_t count, Run run) const {
    int64_t x = first % width;
    for (int64_t done = 0; done < count; x = 0) {
      const int64_t length = count - done < width - x ? count - done : width - x;
      run(offset(first + done), done, length);
      done += length;
    }
  }
};

}  // namespace fcnkern::FCNKERN_ISA
