// Transposed convolution by output phase: output Y = a * s + phase reads the taps ky = phase + t * s at
// source a - t. All phases of one tap count share their source columns; those of a row are one matrix product.
#pragma once

#include "gemm.h"
#include "upsample_add.h"

namespace fcnkern::FCNKERN_ISA {

FCNKERN_INLINE int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }
FCNKERN_INLINE int64_t ceil_of(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Phases [first, first + count) of one axis, each with `taps` taps.
struct PhaseGroup {
  int64_t first, count, taps;
};
FCNKERN_INLINE PhaseGroup phase_group(int64_t kernel, int64_t stride, int which) {
  const int64_t longer = kernel % stride;
  return which == 0 ? PhaseGroup{0, longer, kernel / stride + 1}
                    : PhaseGroup{longer, stride - longer, kernel / stride};
}

// A band of rows of one image's output for channels [channel, channel + channels), in coordinates of the full
// output.
struct DeconvBand {
  int64_t image, channel, channels, row, rows;
};

template <class T>
class DenseDeconv {
 public:
  // Channels come in blocks of `block`.
  DenseDeconv(const DeconvParams& p, int64_t block)
      : p_(p), block_(block), blocks_(ceil_div(p.outputs, block)) {
    int64_t size = 0;
    for (int g = 0; g < 4; ++g) {
      Group& group = groups_[g];
      group.y = phase_group(p.kernel[0], p.stride[0], g / 2);
      group.x = phase_group(p.kernel[1], p.stride[1], g % 2);
      group.depth = p.inputs * group.y.taps * group.x.taps;
      group.rows = block * group.x.count;
      group.weights = size;
      if (group.rows * group.depth * group.y.count == 0) continue;
      size += group.y.count * blocks_ * group.rows * group.depth;
      group.columns =
          most(1, least(kMostSources / group.depth, kMostSums / group.rows)) / kStrip<T> * kStrip<T>;
      group.columns = most(kStrip<T>, group.columns);
      most_sums_ = most(most_sums_, group.rows * group.columns);
      most_sources_ = most(most_sources_, group.depth * group.columns);
    }
    weights_size_ = round_up(size, 64);
  }

  int64_t weights_size() const { return weights_size_; }               // shared by all threads
  int64_t scratch_size() const { return most_sums_ + most_sources_; }  // of one thread
  int64_t jobs() const { return p_.stride[0] * blocks_; }

  // Lays out the weights of one phase row and block: once per call, shared by all threads.
  void pack_weights(int64_t job, T* weights) const {
    const int64_t phase = job / blocks_, block = job % blocks_;
    for (const Group& g : groups_) {
      if (g.columns == 0 || phase < g.y.first || phase >= g.y.first + g.y.count) continue;
      T* target = weights + g.weights + ((phase - g.y.first) * blocks_ + block) * g.rows * g.depth;
      const int64_t rows = least(block_, p_.outputs - block * block_) * g.x.count;
      for (int64_t k = 0; k < g.depth; k += kDepth) {
        const int depth = static_cast<int>(least(kDepth, g.depth - k));
        pack_panels(static_cast<int>(rows), depth, target + k * rows, [&](int m, int width, T* panel) {
          for (int i = 0; i < depth; ++i)
            pack_row(g, phase, block * block_, k + i, m, width, panel + i * width);
        });
      }
    }
  }

  // target[c * stride + (y - band.row) * window width + (x - window begin)] = output; overwrites the band.
  void write(const DeconvBand& band, const T* weights, T* scratch, T* target, int64_t stride) const {
    if (p_.kernel[0] < p_.stride[0] || p_.kernel[1] < p_.stride[1])
      clear_columns(target, stride, band.channels, 0, band.rows * (p_.end[1] - p_.begin[1]));
    for (const Group& g : groups_)
      if (g.columns != 0) write_group(g, band, weights, scratch, target, stride);
  }

 private:
  static constexpr int64_t kMostSums = 32768, kMostSources = 98304;

  struct Group {
    PhaseGroup y, x;
    int64_t depth, rows;  // of the product
    int64_t columns = 0;  // source positions of one product; 0: the group is empty
    int64_t weights;      // where its weights begin
  };

  // target[i] = weight of row m + i (channel, phase column) at depth k (input, tap row, tap column).
  void pack_row(const Group& g, int64_t phase, int64_t channel, int64_t k, int m, int width,
                T* target) const {
    const int64_t input = k / (g.y.taps * g.x.taps), ty = k / g.x.taps % g.y.taps, tx = k % g.x.taps;
    const T* from = static_cast<const T*>(p_.weight) + input * p_.outputs * p_.kernel[0] * p_.kernel[1] +
                    (phase + ty * p_.stride[0]) * p_.kernel[1] + tx * p_.stride[1] + g.x.first;
    int64_t o = m / g.x.count, px = m % g.x.count;
    for (int i = 0; i < width; ++i) {
      target[i] = from[(channel + o) * p_.kernel[0] * p_.kernel[1] + px];
      if (++px == g.x.count) px = 0, ++o;
    }
  }

  // The positions (a, b) that any phase of a group reaches inside the band, in one order.
  struct Positions {
    int64_t a, b, a_count, b_count;
  };

  void write_group(const Group& g, const DeconvBand& band, const T* weights, T* scratch, T* target,
                   int64_t stride) const {
    Positions at;
    at.a = ceil_of(band.row - (g.y.first + g.y.count - 1), p_.stride[0]);
    at.a_count = floor_div(band.row + band.rows - 1 - g.y.first, p_.stride[0]) + 1 - at.a;
    at.b = ceil_of(p_.begin[1] - (g.x.first + g.x.count - 1), p_.stride[1]);
    at.b_count = floor_div(p_.end[1] - 1 - g.x.first, p_.stride[1]) + 1 - at.b;
    T *const sums = scratch, *const sources = scratch + most_sums_;
    const int64_t rows = band.channels * g.x.count, total = at.a_count * at.b_count;
    for (int64_t first = 0; first < total; first += g.columns) {
      const int64_t count = least(g.columns, total - first);
      const int registers = static_cast<int>(ceil_div(count, kRegister<T>));
      gather_sources(g, band.image, at, first, count, sources);
      for (int64_t phase = 0; phase < g.y.count; ++phase) {
        const T* a = weights + g.weights + (phase * blocks_ + band.channel / block_) * g.rows * g.depth;
        clear_columns(sums, g.columns, rows, 0, g.columns);
        for (int64_t k = 0; k < g.depth; k += kDepth)
          multiply_panel<T>(static_cast<int>(rows), registers, static_cast<int>(least(kDepth, g.depth - k)),
                            a + k * rows, sources + k * g.columns, g.columns, sums, g.columns);
        scatter(g, band, at, g.y.first + phase, first, count, sums, target, stride);
      }
    }
  }

  // run(a, first b, how many positions lie before, length)
  template <class Run>
  void for_each_row(const Positions& at, int64_t first, int64_t count, Run run) const {
    int64_t a = at.a + first / at.b_count, b = first % at.b_count;
    for (int64_t done = 0; done < count; b = 0, ++a) {
      const int64_t length = least(count - done, at.b_count - b);
      run(a, at.b + b, done, length);
      done += length;
    }
  }

  // sources[k][position] = x[input][a - ty][b - tx], 0 outside; padded with 0 to whole registers.
  void gather_sources(const Group& g, int64_t image, const Positions& at, int64_t first, int64_t count,
                      T* sources) const {
    const T* x = static_cast<const T*>(p_.x) + image * p_.inputs * p_.height * p_.width;
    clear_columns(sources, g.columns, g.depth, count, round_up(count, kRegister<T>));
    for_each_row(at, first, count, [&](int64_t a, int64_t b, int64_t done, int64_t length) {
      T* to = sources + done;
      for (int64_t input = 0; input < p_.inputs; ++input)
        for (int64_t ty = 0; ty < g.y.taps; ++ty)
          for (int64_t tx = 0; tx < g.x.taps; ++tx, to += g.columns) {
            const bool inside = a - ty >= 0 && a - ty < p_.height;
            const T* from = x + (input * p_.height + (a - ty)) * p_.width + (b - tx);
            const int64_t begin = inside ? least(length, most(0, tx - b)) : length;
            const int64_t end = inside ? most(begin, least(length, p_.width + tx - b)) : length;
            for (int64_t i = 0; i < begin; ++i) to[i] = 0;
            for (int64_t i = begin; i < end; ++i) to[i] = from[i];
            for (int64_t i = end; i < length; ++i) to[i] = 0;
          }
    });
  }

  // Puts the sums of one phase row at their pixels.
  void scatter(const Group& g, const DeconvBand& band, const Positions& at, int64_t phase, int64_t first,
               int64_t count, const T* sums, T* target, int64_t stride) const {
    const int64_t step = p_.stride[1], width = p_.end[1] - p_.begin[1];
    for_each_row(at, first, count, [&](int64_t a, int64_t b, int64_t done, int64_t length) {
      const int64_t y = a * p_.stride[0] + phase - band.row;
      if (y < 0 || y >= band.rows) return;
      for (int64_t c = 0; c < band.channels; ++c) {
        T* to = target + c * stride + y * width;
        const T* from = sums + c * g.x.count * g.columns + done;
        const int64_t x = b * step + g.x.first - p_.begin[1];
        if (step == 2 && g.x.count == 2 && x >= 0 && x + 2 * length <= width) {
          for (int64_t i = 0; i < length; ++i)
            to[x + 2 * i] = from[i], to[x + 2 * i + 1] = from[g.columns + i];
          continue;
        }
        for (int64_t px = 0; px < g.x.count; ++px) {
          const int64_t begin = most(0, ceil_of(-(x + px), step)),
                        end = least(length, ceil_of(width - (x + px), step));
          for (int64_t i = begin; i < end; ++i) to[x + px + i * step] = from[px * g.columns + i];
        }
      }
    });
  }

  const DeconvParams& p_;
  const int64_t block_, blocks_;
  Group groups_[4];
  int64_t weights_size_ = 0, most_sums_ = 0, most_sources_ = 0;
};

}  // namespace fcnkern::FCNKERN_ISA
