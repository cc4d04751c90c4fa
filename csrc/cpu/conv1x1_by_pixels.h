// The product of a 1x1 convolution where the channels of its result lie side by side: pixels are the rows and
// channels the columns, so that only x is transposed, which has fewer channels. It is the gradient of features
// from that of their scores.
#pragma once

#include "conv1x1_tile.h"

namespace fcnkern::FCNKERN_ISA {

// Reads x once (for few pixels once per thread) and the weight once per kRows pixels, writes y once; bound by the
// multiply-adds where x has more than about ten channels, else by what is written.
template <class T>
class ProductByPixels {
 public:
  static bool suits(const Conv1x1Params& p) {
    const bool alone = p.bias.data == nullptr && !p.relu && p.dropout_p == 0;
    return alone && p.y.stride[1] == 1 && p.weight.stride[0] == 1 && p.inputs <= kMostInputs &&
           p.outputs >= kPackColumns;
  }

  explicit ProductByPixels(const Conv1x1Params& p)
      : p_(p),
        from_(p.x, p.height, p.width),
        to_(p.y, p.height, p.width),
        count_(p.images * p.height * p.width),
        threads_(worth_threads(p.threads, count_ * p.inputs * p.outputs)),
        blocks_(ceil_div(count_, kRows)),
        columns_(round_up(ceil_div(p.outputs, blocks_ < kTilesPerThread * threads_ ? threads_ : 1),
                          kPackColumns)),
        column_tiles_(ceil_div(p.outputs, columns_)) {}

  void run() const {
    const int64_t a_size = kRows * p_.inputs, b_size = kDepth * kPackColumns,
                  per_thread = round_up(a_size + b_size + kRows * kPackColumns, 64);
    Scratch scratch(static_cast<size_t>(threads_ * per_thread) * sizeof(T));
    for_each(blocks_ * column_tiles_, threads_, [&](int64_t tile, int thread) {
      T* const a = reinterpret_cast<T*>(scratch.data()) + thread * per_thread;
      const int64_t pixel = tile / column_tiles_ * kRows, first = tile % column_tiles_ * columns_;
      const int rows = static_cast<int>(least(kRows, count_ - pixel));
      pack_pixels(pixel, rows, a);
      for (int64_t column = first; column < least(first + columns_, p_.outputs); column += kPackColumns)
        multiply(pixel, rows, column, a, a + a_size, a + a_size + b_size);
    });
  }

 private:
  static constexpr int64_t kRows = 64, kMostInputs = 512, kTilesPerThread = 4;

  void pack_pixels(int64_t pixel, int rows, T* a) const {
    for (int64_t k = 0; k < p_.inputs; k += kDepth) {
      const int depth = static_cast<int>(least(kDepth, p_.inputs - k));
      pack_panels(rows, depth, a + k * rows, [&](int m, int width, T* target) {
        from_.for_each_run(pixel + m, width, [&](int64_t offset, int64_t done, int64_t length) {
          load_block<T>(p_.x.dtype, p_.x.data, offset + k * p_.x.stride[1], p_.x.stride[1], from_.stride_x,
                        depth, static_cast<int>(length), target + done, width);
        });
      });
    }
  }

  void multiply(int64_t pixel, int rows, int64_t column, const T* a, T* b, T* acc) const {
    const int count = static_cast<int>(least(kPackColumns, p_.outputs - column));
    const int registers = static_cast<int>(ceil_div(count, kRegister<T>));
    clear_columns(acc, kPackColumns, rows, 0, kPackColumns);
    for (int64_t k = 0; k < p_.inputs; k += kDepth) {
      const int depth = static_cast<int>(least(kDepth, p_.inputs - k));
      load_block<T>(p_.weight.dtype, p_.weight.data, column + k * p_.weight.stride[1], p_.weight.stride[1], 1,
                    depth, count, b, kPackColumns);
      scale_values(b, int64_t{depth} * kPackColumns, static_cast<T>(p_.scale));
      clear_columns(b, kPackColumns, depth, count, registers * kRegister<T>);
      multiply_panel<T>(rows, registers, depth, a + k * rows, b, kPackColumns, acc, kPackColumns);
    }
    to_.for_each_run(pixel, rows, [&](int64_t offset, int64_t done, int64_t length) {
      store_block<T>(p_.y.dtype, p_.y.data, offset + column, to_.stride_x, 1, length, count,
                     acc + done * kPackColumns, kPackColumns);
    });
  }

  const Conv1x1Params& p_;
  const Pixels from_, to_;
  const int64_t count_;
  const int threads_;
  const int64_t blocks_, columns_, column_tiles_;
};

}  // namespace fcnkern::FCNKERN_ISA
