// 1x1 convolution. Forward and gradient of x read features once per 512 outputs; nothing is copied whole.
#include "conv1x1.h"

#include "conv1x1_tile.h"
#include "dropout.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

// Pixels [first, first + count) of the batch, image by image: part(how many lie before, length, first element
// of channel `channel` in N x C x H x W order).
template <class Part>
void for_each_image(int64_t area, int64_t channels, int64_t channel, int64_t first, int64_t count,
                    Part part) {
  for (int64_t done = 0; done < count;) {
    const int64_t image = (first + done) / area, pixel = (first + done) % area;
    const int64_t length = least(count - done, area - pixel);
    part(done, length, static_cast<uint64_t>((image * channels + channel) * area + pixel));
    done += length;
  }
}

// Bias, ReLU and dropout of one row of an accumulator.
template <class T>
void finish_row(const Conv1x1Params& p, const Dropout& dropout, int64_t channel, int64_t first, int64_t count,
                T* row) {
  T bias = 0;
  if (p.bias.data != nullptr)
    load_block<T>(p.bias.dtype, p.bias.data, channel * p.bias.stride[0], 1, 1, 1, 1, &bias, 1);
  if (p.relu) {
    for (int64_t i = 0; i < count; ++i) row[i] = row[i] + bias < 0 ? T{0} : row[i] + bias;  // NaN stays
  } else if (p.bias.data != nullptr) {
    for (int64_t i = 0; i < count; ++i) row[i] += bias;
  }
  if (p.dropout_p == 0) return;
  for_each_image(
      p.height * p.width, p.outputs, channel, first, count,
      [&](int64_t done, int64_t length, uint64_t element) { dropout.apply(row + done, length, element); });
}

template <class T>
void forward(const Conv1x1Params& p) {
  const int64_t count = p.images * p.height * p.width;
  const int threads = worth_threads(p.threads, count * p.inputs * p.outputs);
  const Tiling tiles(p.outputs, count, threads, kStrip<T>, near_pixels(p.x));
  const Pixels from(p.x, p.height, p.width), to(p.y, p.height, p.width);
  const Dropout dropout(p.dropout_p, p.seed);
  const int64_t acc_size = tiles.rows * tiles.stride(), a_size = tiles.rows * kDepth,
                b_size = kDepth * kPackColumns;
  const int64_t per_thread = round_up(acc_size + a_size + b_size, 64);
  Scratch scratch(static_cast<size_t>(threads * per_thread) * sizeof(T));
#pragma omp parallel num_threads(threads)
  {
    T* acc = reinterpret_cast<T*>(scratch.data()) + thread_index() * per_thread;
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < tiles.count(); ++tile) {
      const int64_t row = tile / tiles.column_tiles * tiles.rows,
                    column = tile % tiles.column_tiles * tiles.columns;
      const int64_t rows = least(tiles.rows, p.outputs - row), columns = least(tiles.columns, count - column);
      clear_columns(acc, tiles.stride(), rows, 0, tiles.stride());
      add_conv1x1<T>(p, from, row, static_cast<int>(rows), column, columns, acc, tiles.stride(),
                     acc + acc_size, acc + acc_size + a_size);
      for (int64_t r = 0; r < rows; ++r)
        finish_row(p, dropout, row + r, column, columns, acc + r * tiles.stride());
      to.for_each_run(column, columns, [&](int64_t offset, int64_t done, int64_t length) {
        store_block<T>(p.y.dtype, p.y.data, offset + row * p.y.stride[1], p.y.stride[1], to.stride_x, rows,
                       length, acc + done, tiles.stride());
      });
    }
  }
}

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
        splits_(split_count()),
        split_length_(round_up(most(1, ceil_div(count_, splits_)), kDepth)),
        tiles_(p.outputs, columns_, static_cast<int>(ceil_div(threads_, splits_)), kStrip<T>) {}

  void run() {
    const int64_t acc_size = tiles_.rows * tiles_.stride(), a_size = tiles_.rows * kDepth;
    const int64_t per_thread = round_up(acc_size + a_size + kDepth * kPackColumns, 64);
    const int64_t whole = p_.outputs * columns_, partial_size = splits_ == 1 ? 0 : splits_ * whole;
    Scratch scratch(static_cast<size_t>(threads_ * per_thread + partial_size) * sizeof(T));
    T* const base = reinterpret_cast<T*>(scratch.data());
    T* const partials = base + threads_ * per_thread;
#pragma omp parallel num_threads(threads_)
    {
      T* acc = base + thread_index() * per_thread;
#pragma omp for schedule(dynamic)
      for (int64_t job = 0; job < tiles_.count() * splits_; ++job) {
        const int64_t tile = job % tiles_.count(), split = job / tiles_.count();
        const int64_t row = tile / tiles_.column_tiles * tiles_.rows;
        const int64_t column = tile % tiles_.column_tiles * tiles_.columns;
        const int64_t rows = least(tiles_.rows, p_.outputs - row),
                      columns = least(tiles_.columns, columns_ - column);
        clear_columns(acc, tiles_.stride(), rows, 0, tiles_.stride());
        add(row, static_cast<int>(rows), column, columns, split, acc, acc + acc_size,
            acc + acc_size + a_size);
        if (splits_ == 1) {
          finish(row, rows, column, columns, acc, tiles_.stride());
        } else {
          for (int64_t r = 0; r < rows; ++r)
            std::memcpy(partials + split * whole + (row + r) * columns_ + column, acc + r * tiles_.stride(),
                        static_cast<size_t>(columns) * sizeof(T));
        }
      }
      if (splits_ > 1) {
#pragma omp for
        for (int64_t row = 0; row < p_.outputs; ++row) {
          T* sum = partials + row * columns_;
          for (int64_t split = 1; split < splits_; ++split)
            for (int64_t c = 0; c < columns_; ++c) sum[c] += sum[split * whole + c];
          finish(row, 1, 0, columns_, sum, columns_);
        }
      }
    }
  }

 private:
  // Parts of the sum over pixels that may run side by side: a function of the shape alone.
  int64_t split_count() const {
    constexpr int64_t kPixels = 8192, kMostElements = int64_t{1} << 21;
    const int64_t room = most(1, kMostElements / most(1, p_.outputs * columns_));
    return most(1, least(ceil_div(count_, kPixels), room));
  }

  void add(int64_t row, int rows, int64_t column, int64_t columns, int64_t split, T* acc, T* a, T* b) const {
    const auto load_a = [&](int64_t k, int depth, int m, int width, T* target) {
      y_pixels_.for_each_run(k, depth, [&](int64_t offset, int64_t done, int64_t length) {
        load_block<T>(p_.y.dtype, p_.y.data, offset + (row + m) * p_.y.stride[1], y_pixels_.stride_x,
                      p_.y.stride[1], static_cast<int>(length), width, target + done * width, width);
      });
    };
    const auto load_b = [&](int64_t k, int depth, int64_t c, int n, T* target, NextBlock next) {
      load_features(k, depth, first_column_ + column + c, n, target);
      if (next.count == 0) return kNothingAhead;
      const int64_t size = size_of(p_.x.dtype), plane = p_.x.stride[1];
      const int64_t begin = x_pixels_.offset(next.k) + (first_column_ + column + next.column) * plane;
      return block_ahead(static_cast<const char*>(p_.x.data) + begin * size, x_pixels_.stride_x * size,
                         plane * size, size);
    };
    multiply_tile<T>(rows, columns, split * split_length_, least(count_, (split + 1) * split_length_), load_a,
                     load_b, acc, tiles_.stride(), a, b);
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
  const int64_t splits_, split_length_;
  const Tiling tiles_;
};

template <class T>
void mask(const Conv1x1MaskParams& p) {
  const int64_t area = p.height * p.width, count = p.images * area;
  const int threads = worth_threads(p.threads, count * p.channels);
  const Pixels grads(p.grad, p.height, p.width), outputs(p.y, p.height, p.width),
      results(p.result, p.height, p.width);
  const Dropout dropout(p.dropout_p, p.seed);
  constexpr int64_t kChunk = 1024;
#pragma omp parallel for num_threads(threads)
  for (int64_t job = 0; job < p.channels * ceil_div(count, kChunk); ++job) {
    const int64_t channel = job % p.channels, first = job / p.channels * kChunk,
                  n = least(kChunk, count - first);
    T grad[kChunk], output[kChunk];
    const auto load_row = [&](const TensorView& image, const Pixels& pixels, T* row) {
      pixels.for_each_run(first, n, [&](int64_t offset, int64_t done, int64_t length) {
        load_block<T>(image.dtype, image.data, offset + channel * image.stride[1], 0, pixels.stride_x, 1,
                      static_cast<int>(length), row + done, 0);
      });
    };
    load_row(p.grad, grads, grad);
    if (p.y.data != nullptr) {
      load_row(p.y, outputs, output);
      const T scale = static_cast<T>(dropout.scale());
      for (int64_t i = 0; i < n; ++i) grad[i] = output[i] <= 0 ? T{0} : grad[i] * scale;
    } else {
      for_each_image(area, p.channels, channel, first, n,
                     [&](int64_t done, int64_t length, uint64_t element) {
                       dropout.apply(grad + done, length, element);
                     });
    }
    results.for_each_run(first, n, [&](int64_t offset, int64_t done, int64_t length) {
      store_block<T>(p.result.dtype, p.result.data, offset + channel * p.result.stride[1], 0,
                     results.stride_x, 1, length, grad + done, 0);
    });
  }
}

}  // namespace

void conv1x1_forward(const Conv1x1Params& p) {
  p.x.dtype == DType::kF64 ? forward<double>(p) : forward<float>(p);
}

void conv1x1_grad_weight(const Conv1x1Params& p) {
  p.x.dtype == DType::kF64 ? WeightGradient<double>(p).run() : WeightGradient<float>(p).run();
}

void conv1x1_mask(const Conv1x1MaskParams& p) {
  p.grad.dtype == DType::kF64 ? mask<double>(p) : mask<float>(p);
}

}  // namespace fcnkern::FCNKERN_ISA
