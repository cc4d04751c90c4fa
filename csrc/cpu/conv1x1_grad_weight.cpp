// The gradients of a 1x1 convolution's weight and bias: sums over all pixels, cut where threads share them.
#include "conv1x1_tile.h"
#include "dots.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

// The gradient of weight is y x^T over all pixels; that of bias is one more column, of a feature that is 1
// everywhere.
template <class T>
class WeightGradient {
 public:
  explicit WeightGradient(const Conv1x1Params& p)
      : p_(p),
        x_pixels_(p.x, p.height, p.width),
        y_pixels_(p.y, p.height, p.width),
        first_column_(p.weight.data == nullptr ? p.inputs : 0),
        columns_((p.bias.data == nullptr ? p.inputs : p.inputs + 1) - first_column_),
        count_(p.images * p.height * p.width),
        threads_(worth_threads(p.threads, count_ * p.outputs * columns_)),
        by_dots_(x_pixels_.stride_x == 1 && p.outputs <= kMostDotOutputs),
        depth_(by_dots_ ? kDotLength : kDepth),
        splits_(split_count()),
        split_length_(round_up(most(1, ceil_div(count_, splits_)), depth_)),
        tiles_(p.outputs, columns_, static_cast<int>(ceil_div(threads_, splits_)),
               by_dots_ ? kDotColumns : kStrip<T>) {}

  void run() {
    const int64_t acc_size = tiles_.rows * tiles_.stride(), a_size = round_up(tiles_.rows * depth_, 16),
                  b_size = most(kDepth * kPackColumns, kDotLength * kDotColumns);
    const int64_t per_thread = round_up(acc_size + a_size + b_size, 64);
    const int64_t whole = p_.outputs * columns_, partial_size = splits_ == 1 ? 0 : splits_ * whole;
    Scratch scratch(static_cast<size_t>(threads_ * per_thread + partial_size) * sizeof(T));
    T* const base = reinterpret_cast<T*>(scratch.data());
    T* const partials = base + threads_ * per_thread;
    for_each(tiles_.count() * splits_, threads_, [&](int64_t job, int thread) {
      T* const acc = base + thread * per_thread;
      const int64_t tile = job % tiles_.count(), split = job / tiles_.count();
      const int64_t row = tile / tiles_.column_tiles * tiles_.rows;
      const int64_t column = tile % tiles_.column_tiles * tiles_.columns;
      const int64_t rows = least(tiles_.rows, p_.outputs - row),
                    columns = least(tiles_.columns, columns_ - column);
      clear_columns(acc, tiles_.stride(), rows, 0, tiles_.stride());
      const auto add = by_dots_ ? &WeightGradient::add_by_dots : &WeightGradient::add_by_panels;
      (this->*add)(row, static_cast<int>(rows), column, columns, split, acc, acc + acc_size,
                   acc + acc_size + a_size);
      if (splits_ == 1) return finish(row, rows, column, columns, acc, tiles_.stride());
      for (int64_t r = 0; r < rows; ++r)
        std::memcpy(partials + split * whole + (row + r) * columns_ + column, acc + r * tiles_.stride(),
                    static_cast<size_t>(columns) * sizeof(T));
    });
    if (splits_ == 1) return;
    for_each(p_.outputs, threads_, [&](int64_t row, int) {
      T* sum = partials + row * columns_;
      for (int64_t split = 1; split < splits_; ++split)
        for (int64_t c = 0; c < columns_; ++c) sum[c] += sum[split * whole + c];
      finish(row, 1, 0, columns_, sum, columns_);
    });
  }

 private:
  static constexpr int64_t kMostDotOutputs = 160;  // a panel of gradients then stays in the second-level cache

  // Parts of the sum over pixels that may run side by side: a function of the shape alone.
  int64_t split_count() const {
    constexpr int64_t kPixels = 8192, kMostElements = int64_t{1} << 21;
    const int64_t room = most(1, kMostElements / most(1, p_.outputs * columns_));
    return most(1, least(ceil_div(count_, kPixels), room));
  }

  // Few outputs: gradients and features as they lie, pixels side by side. `a` holds all gradients of a panel.
  void add_by_dots(int64_t row, int rows, int64_t column, int64_t columns, int64_t split, T* acc, T* a,
                   T* b) const {
    const auto load_a = [&](int64_t k, int length, T* target) {
      load_rows(p_.y, y_pixels_, k, length, row, rows, target);
    };
    const auto load_b = [&](int64_t k, int length, int64_t c, int n, T* target) {
      const int64_t channel = first_column_ + column + c;
      const int real = static_cast<int>(least(n, p_.inputs - channel));
      load_rows(p_.x, x_pixels_, k, length, channel, real, target);
      for (int i = 0; real < n && i < length; ++i) target[real * kDotLength + i] = 1;
    };
    const auto where = [&](int64_t k, int length, int64_t c) {
      const int64_t channel = first_column_ + column + c;
      const bool ready = is_type<T>(p_.x.dtype) && channel + kDotColumns <= p_.inputs &&
                         k % x_pixels_.width + length <= x_pixels_.width;
      const int64_t plane = p_.x.stride[1];
      return DotColumns<T>{
          ready ? static_cast<const T*>(p_.x.data) + x_pixels_.offset(k) + channel * plane : nullptr, plane};
    };
    const auto ahead = [&](int64_t k, int length, int64_t c) {
      return features_ahead(k, length, first_column_ + column + c);
    };
    multiply_by_dots<T>(rows, columns, split * split_length_, least(count_, (split + 1) * split_length_),
                        load_a, load_b, where, ahead, acc, tiles_.stride(), a, b);
  }

  // Rows of a crop have gaps between them, spread here over the pixels. The address may lie past the last one.
  ColumnsAhead features_ahead(int64_t pixel, int length, int64_t channel) const {
    const int64_t size = size_of(p_.x.dtype), first = least(pixel, count_ - 1);
    const int64_t begin = x_pixels_.offset(first), end = x_pixels_.offset(least(first + length, count_) - 1);
    const int64_t steps = ceil_div(length, kRegister<T>);
    return {static_cast<const char*>(p_.x.data) + (begin + channel * p_.x.stride[1]) * size,
            (end - begin + 1) * size / steps, p_.x.stride[1] * size, 0};
  }

  static void load_rows(const TensorView& image, const Pixels& pixels, int64_t pixel, int length,
                        int64_t channel, int channels, T* target) {
    pixels.for_each_run(pixel, length, [&](int64_t offset, int64_t done, int64_t run) {
      load_block<T>(image.dtype, image.data, offset + channel * image.stride[1], image.stride[1],
                    pixels.stride_x, channels, static_cast<int>(run), target + done, kDotLength);
    });
  }

  // Many outputs, or channels side by side: features transposed on the way into panels.
  void add_by_panels(int64_t row, int rows, int64_t column, int64_t columns, int64_t split, T* acc, T* a,
                     T* b) const {
    const auto load_a = [&](int64_t k, int depth, int m, int width, T* target) {
      y_pixels_.for_each_run(k, depth, [&](int64_t offset, int64_t done, int64_t length) {
        load_block<T>(p_.y.dtype, p_.y.data, offset + (row + m) * p_.y.stride[1], y_pixels_.stride_x,
                      p_.y.stride[1], static_cast<int>(length), width, target + done * width, width);
      });
    };
    const auto load_b = [&](int64_t k, int depth, int64_t c, int n, T* target) {
      load_features(k, depth, first_column_ + column + c, n, target);
    };
    const auto ahead = [&](int64_t k, int64_t c, int n) {
      const int64_t size = size_of(p_.x.dtype), plane = p_.x.stride[1];
      const int64_t begin = x_pixels_.offset(k) + (first_column_ + column + c) * plane;
      return block_ahead(static_cast<const char*>(p_.x.data) + begin * size, x_pixels_.stride_x * size,
                         plane * size, n, size);
    };
    multiply_tile<T>(rows, columns, split * split_length_, least(count_, (split + 1) * split_length_), load_a,
                     load_b, PackAll<T>{}, ahead, acc, tiles_.stride(), a, b);
  }

  void load_features(int64_t pixel, int depth, int64_t channel, int n, T* target) const {
    const int real = static_cast<int>(least(n, p_.inputs - channel));
    x_pixels_.for_each_run(pixel, depth, [&](int64_t offset, int64_t done, int64_t length) {
      load_block<T>(p_.x.dtype, p_.x.data, offset + channel * p_.x.stride[1], x_pixels_.stride_x,
                    p_.x.stride[1], static_cast<int>(length), real, target + done * kPackColumns,
                    kPackColumns);
    });
    for (int r = 0; real < n && r < depth; ++r) target[r * kPackColumns + real] = 1;
  }

  void finish(int64_t row, int64_t rows, int64_t column, int64_t columns, T* sums, int64_t stride) const {
    const int64_t channel = first_column_ + column, real = least(columns, p_.inputs - channel);
    if (real < columns)
      store_block<T>(p_.bias.dtype, p_.bias.data, row * p_.bias.stride[0], p_.bias.stride[0], 1, rows, 1,
                     sums + real, stride);
    if (real <= 0) return;
    for (int64_t r = 0; r < rows; ++r) scale_values(sums + r * stride, real, static_cast<T>(p_.scale));
    store_block<T>(p_.weight.dtype, p_.weight.data, row * p_.weight.stride[0] + channel * p_.weight.stride[1],
                   p_.weight.stride[0], p_.weight.stride[1], rows, real, sums, stride);
  }

  const Conv1x1Params& p_;
  const Pixels x_pixels_, y_pixels_;
  const int64_t first_column_, columns_, count_;
  const int threads_;
  const bool by_dots_;
  const int64_t depth_;  // of a panel, in pixels
  const int64_t splits_, split_length_;
  const Tiling tiles_;
};

}  // namespace

void conv1x1_grad_weight(const Conv1x1Params& p) {
  p.x.dtype == DType::kF64 ? WeightGradient<double>(p).run() : WeightGradient<float>(p).run();
}

}  // namespace fcnkern::FCNKERN_ISA
