// 1x1 convolution: its result and the gradient of x. Features are read once per 512 outputs; nothing is copied
// whole.
#include "conv1x1.h"

#include "conv1x1_by_pixels.h"
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
  if (ProductByPixels<T>::suits(p)) return ProductByPixels<T>(p).run();
  const int64_t count = p.images * p.height * p.width;
  const int threads = worth_threads(p.threads, count * p.inputs * p.outputs);
  const Tiling tiles(p.outputs, count, threads, kStrip<T>, near_pixels(p.x));
  const Pixels from(p.x, p.height, p.width), to(p.y, p.height, p.width);
  const Dropout dropout(p.dropout_p, p.seed);
  const int64_t acc_size = tiles.rows * tiles.stride();
  const int64_t per_thread = round_up(acc_size + conv1x1_work(tiles.rows), 64);
  Scratch scratch(static_cast<size_t>(threads * per_thread) * sizeof(T));
  for_each(tiles.count(), threads, [&](int64_t tile, int thread) {
    T* const acc = reinterpret_cast<T*>(scratch.data()) + thread * per_thread;
    const int64_t row = tile / tiles.column_tiles * tiles.rows,
                  column = tile % tiles.column_tiles * tiles.columns;
    const int64_t rows = least(tiles.rows, p.outputs - row), columns = least(tiles.columns, count - column);
    clear_columns(acc, tiles.stride(), rows, 0, tiles.stride());
    add_conv1x1<T>(p, from, row, static_cast<int>(rows), column, columns, acc, tiles.stride(), acc + acc_size);
    for (int64_t r = 0; r < rows; ++r)
      finish_row(p, dropout, row + r, column, columns, acc + r * tiles.stride());
    to.for_each_run(column, columns, [&](int64_t offset, int64_t done, int64_t length) {
      store_block<T>(p.y.dtype, p.y.data, offset + row * p.y.stride[1], p.y.stride[1], to.stride_x, rows, length,
                     acc + done, tiles.stride());
    });
  });
}

template <class T>
class GradientMask {
 public:
  explicit GradientMask(const Conv1x1MaskParams& p)
      : p_(p),
        area_(p.height * p.width),
        count_(p.images * area_),
        grads_(p.grad, p.height, p.width),
        outputs_(p.y, p.height, p.width),
        results_(p.result, p.height, p.width),
        dropout_(p.dropout_p, p.seed) {}

  void run() const {
    if (is_side_by_side()) {
      const int64_t width = least(p_.channels, kChunk), parts = ceil_div(p_.channels, width);
      return for_each_unit(parts * ceil_div(count_, kChunk / width), [&](int64_t unit) {
        mask_channels(unit / parts * (kChunk / width), unit % parts * width, width);
      });
    }
    for_each_unit(p_.channels * ceil_div(count_, kChunk), [&](int64_t unit) {
      mask_pixels(unit % p_.channels, unit / p_.channels * kChunk);
    });
  }

 private:
  static constexpr int64_t kChunk = 1024;  // elements

  template <class Mask>
  void for_each_unit(int64_t units, Mask mask) const {
    for_each_share(units, worth_threads(p_.threads, count_ * p_.channels),
                   [&](int64_t first, int64_t last, int) {
                     for (int64_t unit = first; unit < last; ++unit) mask(unit);
                   });
  }

  // Whether rows of channels can be masked: an output tells all, a dropout word hangs on the pixel's place.
  bool is_side_by_side() const {
    return p_.y.data != nullptr && p_.grad.stride[1] == 1 && p_.y.stride[1] == 1 && p_.result.stride[1] == 1;
  }

  // Up to `width` channels of kChunk / width pixels.
  void mask_channels(int64_t pixel, int64_t channel, int64_t width) const {
    const int64_t pixels = least(kChunk / width, count_ - pixel);
    const int channels = static_cast<int>(least(width, p_.channels - channel));
    T grad[kChunk] = {}, output[kChunk] = {};
    const auto load = [&](const TensorView& image, const Pixels& places, T* rows) {
      places.for_each_run(pixel, pixels, [&](int64_t offset, int64_t done, int64_t length) {
        load_block<T>(image.dtype, image.data, offset + channel, places.stride_x, 1, static_cast<int>(length),
                      channels, rows + done * width, width);
      });
    };
    load(p_.grad, grads_, grad);
    load(p_.y, outputs_, output);
    let_pass(kChunk, output, grad);
    results_.for_each_run(pixel, pixels, [&](int64_t offset, int64_t done, int64_t length) {
      store_block<T>(p_.result.dtype, p_.result.data, offset + channel, results_.stride_x, 1, length, channels,
                     grad + done * width, width);
    });
  }

  // A gradient where ReLU and dropout let the output pass, else 0.
  void let_pass(int64_t n, const T* output, T* grad) const {
    const T scale = static_cast<T>(dropout_.scale());
    for (int64_t i = 0; i < n; ++i) grad[i] = output[i] <= 0 ? T{0} : grad[i] * scale;
  }

  void mask_pixels(int64_t channel, int64_t first) const {
    const int64_t n = least(kChunk, count_ - first);
    T grad[kChunk], output[kChunk];
    load_row(p_.grad, grads_, channel, first, n, grad);
    if (p_.y.data != nullptr) {
      load_row(p_.y, outputs_, channel, first, n, output);
      let_pass(n, output, grad);
    } else {
      for_each_image(area_, p_.channels, channel, first, n,
                     [&](int64_t done, int64_t length, uint64_t element) {
                       dropout_.apply(grad + done, length, element);
                     });
    }
    results_.for_each_run(first, n, [&](int64_t offset, int64_t done, int64_t length) {
      store_block<T>(p_.result.dtype, p_.result.data, offset + channel * p_.result.stride[1], 0,
                     results_.stride_x, 1, length, grad + done, 0);
    });
  }

  static void load_row(const TensorView& image, const Pixels& pixels, int64_t channel, int64_t first, int64_t n,
                       T* row) {
    pixels.for_each_run(first, n, [&](int64_t offset, int64_t done, int64_t length) {
      load_block<T>(image.dtype, image.data, offset + channel * image.stride[1], 0, pixels.stride_x, 1,
                    static_cast<int>(length), row + done, 0);
    });
  }

  const Conv1x1MaskParams& p_;
  const int64_t area_, count_;
  const Pixels grads_, outputs_, results_;
  const Dropout dropout_;
};

}  // namespace

void conv1x1_forward(const Conv1x1Params& p) {
  p.x.dtype == DType::kF64 ? forward<double>(p) : forward<float>(p);
}

void conv1x1_mask(const Conv1x1MaskParams& p) {
  p.grad.dtype == DType::kF64 ? GradientMask<double>(p).run() : GradientMask<float>(p).run();
}

}  // namespace fcnkern::FCNKERN_ISA
