// Gradients of the transposed convolution: products over the kernel's elements (of x) and over the source
// pixels (of weight), both gathered from the output's gradient; depthwise, sums along whole rows. All in a
// fixed order.
#include "conv1x1_tile.h"
#include "depthwise.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

template <class T>
constexpr DType kDense = sizeof(T) == 8 ? DType::kF64 : DType::kF32;

// target[r * target_stride + c] = gradient at row y, column x + r * row_step + c * column_step of the full
// output, 0 outside the window.
template <class T>
void load_gradient(const DeconvParams& p, int64_t image, int64_t channel, int64_t y, int64_t x,
                   int64_t row_step, int64_t column_step, int rows, int columns, T* target,
                   int64_t target_stride) {
  const int64_t width = p.end[1] - p.begin[1];
  if (y < p.begin[0] || y >= p.end[0]) return clear_columns(target, target_stride, rows, 0, columns);
  x -= p.begin[1];
  const int64_t *stride = p.y.stride,
                row = image * stride[0] + channel * stride[1] + (y - p.begin[0]) * stride[2];
  if (x >= 0 && x + (rows - 1) * row_step + (columns - 1) * column_step < width)
    return load_block<T>(p.y.dtype, p.y.data, row + x * stride[3], row_step * stride[3],
                         column_step * stride[3], rows, columns, target, target_stride);
  for (int r = 0; r < rows; ++r, x += row_step, target += target_stride) {
    const int64_t begin = most(0, least(columns, ceil_of(-x, column_step)));
    const int64_t end = most(begin, least(columns, ceil_of(width - x, column_step)));
    clear_columns(target, 0, 1, 0, begin);
    load_block<T>(p.y.dtype, p.y.data, row + (x + begin * column_step) * stride[3], 0,
                  column_step * stride[3], 1, static_cast<int>(end - begin), target + begin, 0);
    clear_columns(target, 0, 1, end, columns);
  }
}

// run(outer index, inner index, how many lie before, length) for [first, first + count) of outer x inner.
template <class Run>
void for_each_row(int64_t inner, int64_t first, int64_t count, Run run) {
  int64_t row = first / inner, at = first % inner;
  for (int64_t done = 0; done < count; at = 0, ++row) {
    const int64_t length = least(count - done, inner - at);
    run(row, at, done, static_cast<int>(length));
    done += length;
  }
}

// The result of a product: m x n, cut into tiles that threads take in any order.
template <class T, class LoadA, class LoadB, class Store>
void multiply(int64_t m, int64_t n, int64_t k, int threads_wanted, LoadA load_a, LoadB load_b, Store store) {
  const int threads = worth_threads(threads_wanted, m * n * k);
  const Tiling tiles(m, n, threads, kStrip<T>);
  const int64_t acc_size = tiles.rows * tiles.stride(), a_size = tiles.rows * kDepth;
  const int64_t per_thread = round_up(acc_size + a_size + kDepth * kPackColumns, 64);
  Scratch scratch(static_cast<size_t>(threads * per_thread) * sizeof(T));
  for_each(tiles.count(), threads, [&](int64_t tile, int thread) {
    T* const acc = reinterpret_cast<T*>(scratch.data()) + thread * per_thread;
    const int64_t row = tile / tiles.column_tiles * tiles.rows,
                  column = tile % tiles.column_tiles * tiles.columns;
    const int64_t rows = least(tiles.rows, m - row), columns = least(tiles.columns, n - column);
    clear_columns(acc, tiles.stride(), rows, 0, tiles.stride());
    multiply_tile<T>(
        static_cast<int>(rows), columns, 0, k,
        [&](int64_t first, int depth, int r, int width, T* to) {
          load_a(first, depth, row + r, width, to);
        },
        [&](int64_t first, int depth, int64_t c, int count, T* to) {
          load_b(first, depth, column + c, count, to);
        },
        PackAll<T>{}, [](int64_t, int64_t, int) { return kNothingAhead; }, acc, tiles.stride(), acc + acc_size, acc + acc_size + a_size);
    for (int64_t r = 0; r < rows; ++r) store(row + r, column, columns, acc + r * tiles.stride());
  });
}

// grad_x[c][pixel] = sum over (o, ky, kx) of weight[c][o, ky, kx] * grad[o][i * sy + ky][j * sx + kx].
template <class T>
void dense_grad_input(const DeconvParams& p, T* grad_x) {
  const int64_t area = p.height * p.width, depth_total = p.outputs * p.kernel[0] * p.kernel[1];
  const auto load_a = [&](int64_t k, int depth, int64_t m, int width, T* target) {
    load_block<T>(kDense<T>, p.weight, m * depth_total + k, 1, depth_total, depth, width, target, width);
  };
  const auto load_b = [&](int64_t k, int depth, int64_t pixel, int count, T* target) {
    for_each_row(p.kernel[1], k, depth, [&](int64_t line, int64_t kx, int64_t above, int rows) {
      for_each_row(p.width, pixel, count, [&](int64_t source, int64_t j, int64_t before, int columns) {
        const int64_t y = source % p.height * p.stride[0] + line % p.kernel[0];
        load_gradient(p, source / p.height, line / p.kernel[0], y, j * p.stride[1] + kx, 1, p.stride[1], rows,
                      columns, target + above * kPackColumns + before, kPackColumns);
      });
    });
  };
  const auto store = [&](int64_t channel, int64_t pixel, int64_t count, const T* sums) {
    for_each_row(area, pixel, count, [&](int64_t image, int64_t at, int64_t before, int length) {
      std::memcpy(grad_x + (image * p.inputs + channel) * area + at, sums + before,
                  static_cast<size_t>(length) * sizeof(T));
    });
  };
  multiply<T>(p.inputs, p.images * area, depth_total, p.threads, load_a, load_b, store);
}

// grad_weight[c][o, ky, kx] = sum over pixels of x[c][i][j] * grad[o][i * sy + ky][j * sx + kx].
template <class T>
void dense_grad_weight(const DeconvParams& p, T* grad_weight) {
  const int64_t area = p.height * p.width, elements = p.outputs * p.kernel[0] * p.kernel[1];
  const auto load_a = [&](int64_t k, int depth, int64_t m, int width, T* target) {
    for_each_row(area, k, depth, [&](int64_t image, int64_t pixel, int64_t above, int rows) {
      load_block<T>(kDense<T>, p.x, (image * p.inputs + m) * area + pixel, 1, area, rows, width,
                    target + above * width, width);
    });
  };
  const auto load_b = [&](int64_t k, int depth, int64_t element, int count, T* target) {
    for_each_row(p.width, k, depth, [&](int64_t source, int64_t j, int64_t above, int rows) {
      for_each_row(p.kernel[1], element, count, [&](int64_t line, int64_t kx, int64_t before, int columns) {
        const int64_t y = source % p.height * p.stride[0] + line % p.kernel[0];
        load_gradient(p, source / p.height, line / p.kernel[0], y, j * p.stride[1] + kx, p.stride[1], 1, rows,
                      columns, target + above * kPackColumns + before, kPackColumns);
      });
    });
  };
  const auto store = [&](int64_t channel, int64_t element, int64_t count, const T* sums) {
    std::memcpy(grad_weight + channel * elements + element, sums, static_cast<size_t>(count) * sizeof(T));
  };
  multiply<T>(p.inputs, elements, p.images * area, p.threads, load_a, load_b, store);
}

// One image and channel: t[tx][X] = sum over ky of P[ky][tx][X] * grad[Y][X], folded into grad_x[i][X / sx -
// tx].
template <class T>
void depthwise_grad_plane(const DeconvParams& p, const DepthwiseDeconv<T>& deconv, int64_t image,
                          int64_t channel, const T* pattern, T* sums, T* row, T* grad_x) {
  const int64_t width = deconv.width(), taps = deconv.taps(1);
  for (int64_t i = 0; i < p.height; ++i, grad_x += p.width) {
    clear_columns(sums, 0, 1, 0, taps * width);
    for (int64_t ky = 0; ky < p.kernel[0]; ++ky) {
      const int64_t y = i * p.stride[0] + ky;
      if (y < p.begin[0] || y >= p.end[0]) continue;
      load_gradient(p, image, channel, y, p.begin[1], 0, 1, 1, static_cast<int>(width), row, 0);
      for (int64_t tx = 0; tx < taps; ++tx)
        accumulate(width, deconv.partial(tx), pattern + (ky * taps + tx) * width, row, sums + tx * width);
    }
    for (int64_t j = 0; j < p.width; ++j) {
      T total = 0;
      for (int64_t tx = 0; tx < taps; ++tx) {
        const int64_t x = (j + tx) * p.stride[1] - p.begin[1];
        for (int64_t at = most(0, x); at < least(width, x + p.stride[1]); ++at)
          total += sums[tx * width + at];
      }
      grad_x[j] = total;
    }
  }
}

template <class T>
void depthwise_grad_input(const DeconvParams& p, T* grad_x) {
  const DepthwiseDeconv<T> deconv(p);
  const int64_t width = deconv.width(), area = p.height * p.width;
  const int threads = worth_threads(p.threads, p.images * p.outputs * area * p.kernel[0] * p.kernel[1]);
  const int64_t sums_size = deconv.taps(1) * width,
                per_thread = round_up(deconv.pattern_size() + sums_size + width, 64);
  Scratch scratch(static_cast<size_t>(threads * per_thread) * sizeof(T));
  Turns planes(p.images * p.outputs);
  on_threads(threads, [&](int thread) {
    T* const pattern = reinterpret_cast<T*>(scratch.data()) + thread * per_thread;
    T* const sums = pattern + deconv.pattern_size();
    if (p.shared) deconv.make_pattern(0, pattern);
    planes.take([&](int64_t plane) {
      if (!p.shared) deconv.make_pattern(plane % p.outputs, pattern);
      depthwise_grad_plane(p, deconv, plane / p.outputs, plane % p.outputs, pattern, sums, sums + sums_size,
                           grad_x + plane * area);
    });
  });
}

// One channel: Q[ky][tx][X] = sum over images and rows i of grad[i * sy + ky][X] * R[i][X - tx * sx], folded
// over X.
template <class T>
void depthwise_grad_kernel(const DeconvParams& p, const DepthwiseDeconv<T>& deconv, int64_t channel, T* sums,
                           T* repeated, T* row, T* grad_weight) {
  const int64_t width = deconv.width(), taps = deconv.taps(1);
  clear_columns(sums, 0, 1, 0, deconv.pattern_size());
  for (int64_t source = 0; source < p.images * p.height; ++source) {
    const int64_t image = source / p.height, i = source % p.height;
    const T* x = static_cast<const T*>(p.x) + ((image * p.inputs + channel) * p.height + i) * p.width;
    deconv.repeat_row(x, repeated);
    for (int64_t ky = 0; ky < p.kernel[0]; ++ky) {
      const int64_t y = i * p.stride[0] + ky;
      if (y < p.begin[0] || y >= p.end[0]) continue;
      load_gradient(p, image, channel, y, p.begin[1], 0, 1, 1, static_cast<int>(width), row, 0);
      for (int64_t tx = 0; tx < taps; ++tx)
        accumulate(width, false, row, deconv.shifted(repeated, tx), sums + (ky * taps + tx) * width);
    }
  }
  for (int64_t ky = 0; ky < p.kernel[0]; ++ky)
    for (int64_t kx = 0; kx < p.kernel[1]; ++kx) {
      const int64_t tx = kx / p.stride[1], phase = kx % p.stride[1] - p.begin[1] % p.stride[1];
      T total = 0;
      for (int64_t x = phase < 0 ? phase + p.stride[1] : phase; x < width; x += p.stride[1])
        total += sums[(ky * taps + tx) * width + x];
      grad_weight[ky * p.kernel[1] + kx] = total;
    }
}

template <class T>
void depthwise_grad_weight(const DeconvParams& p, T* grad_weight) {
  const DepthwiseDeconv<T> deconv(p);
  const int64_t elements = p.kernel[0] * p.kernel[1];
  const int threads = worth_threads(p.threads, p.images * p.outputs * p.height * p.width * elements);
  const int64_t sums_size = deconv.pattern_size(), repeated_size = deconv.repeated_stride();
  const int64_t per_thread = round_up(sums_size + repeated_size + deconv.width(), 64);
  Scratch scratch(static_cast<size_t>(threads * per_thread) * sizeof(T));
  for_each(p.outputs, threads, [&](int64_t channel, int thread) {
    T* const sums = reinterpret_cast<T*>(scratch.data()) + thread * per_thread;
    depthwise_grad_kernel(p, deconv, channel, sums, sums + sums_size, sums + sums_size + repeated_size,
                          grad_weight + channel * elements);
  });
}

template <class T>
void grad_input(const DeconvParams& p, void* grad_x) {
  p.depthwise ? depthwise_grad_input(p, static_cast<T*>(grad_x))
              : dense_grad_input(p, static_cast<T*>(grad_x));
}

template <class T>
void grad_weight(const DeconvParams& p, void* result) {
  p.depthwise ? depthwise_grad_weight(p, static_cast<T*>(result))
              : dense_grad_weight(p, static_cast<T*>(result));
}

}  // namespace

void deconv_grad_input(const DeconvParams& p, void* grad_x) {
  p.y.dtype == DType::kF64 ? grad_input<double>(p, grad_x) : grad_input<float>(p, grad_x);
}

void deconv_grad_weight(const DeconvParams& p, void* result) {
  p.y.dtype == DType::kF64 ? grad_weight<double>(p, result) : grad_weight<float>(p, result);
}

}  // namespace fcnkern::FCNKERN_ISA
