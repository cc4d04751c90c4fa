// Depthwise transposed convolution along whole output rows. With Y = a * sy + py and b = X / sx,
//   out[Y][X] = sum over taps (ty, tx) of P[py + ty * sy][tx][X] * R[a - ty][X - tx * sx],
// where P repeats the row's weights (P[ky][tx][X] = weight[ky][X % sx + tx * sx]) and R repeats each source
// point sx times (R[i][X] = x[i][X / sx], 0 outside). Everything then runs along X with unit stride, for any
// stride and kernel, and so do the gradients: those of R and P, folded back over the repetitions.
#pragma once

#include "deconv.h"

namespace fcnkern::FCNKERN_ISA {

// sum[i] += a[i] * b[i]; with `partial`, elements of zero `a` take no part (no 0 * inf).
template <class T>
FCNKERN_INLINE void accumulate(int64_t count, bool partial, const T* a, const T* b, T* sum) {
  if (partial) {
    for (int64_t i = 0; i < count; ++i) sum[i] = a[i] == 0 ? sum[i] : sum[i] + a[i] * b[i];
  } else {
    for (int64_t i = 0; i < count; ++i) sum[i] += a[i] * b[i];
  }
}

template <class T>
class DepthwiseDeconv {
 public:
  explicit DepthwiseDeconv(const DeconvParams& p)
      : p_(p),
        taps_{ceil_div(p.kernel[0], p.stride[0]), ceil_div(p.kernel[1], p.stride[1])},
        width_(p.end[1] - p.begin[1]),
        margin_((taps_[1] - 1) * p.stride[1]) {}

  int64_t pattern_size() const { return p_.kernel[0] * taps_[1] * width_; }
  int64_t repeated_stride() const { return margin_ + width_; }
  int64_t repeated_size(int64_t rows) const {
    return (rows / p_.stride[0] + 1 + taps_[0]) * repeated_stride();
  }
  int64_t taps(int axis) const { return taps_[axis]; }
  int64_t width() const { return width_; }
  // Whether only some phases have this tap: it is left out at the others.
  bool partial(int64_t tx) const { return (tx + 1) * p_.stride[1] > p_.kernel[1]; }
  // R from X = 0 on, moved tx source points to the right.
  const T* shifted(const T* repeated, int64_t tx) const { return repeated + margin_ - tx * p_.stride[1]; }

  // P of one channel.
  void make_pattern(int64_t channel, T* pattern) const {
    const T* kernel =
        static_cast<const T*>(p_.weight) + (p_.shared ? 0 : channel * p_.kernel[0] * p_.kernel[1]);
    for (int64_t ky = 0; ky < p_.kernel[0]; ++ky)
      for (int64_t tx = 0; tx < taps_[1]; ++tx, pattern += width_) {
        int64_t phase = p_.begin[1] % p_.stride[1];
        for (int64_t x = 0; x < width_; ++x) {
          const int64_t kx = phase + tx * p_.stride[1];
          pattern[x] = kx < p_.kernel[1] ? kernel[ky * p_.kernel[1] + kx] : T{0};
          if (++phase == p_.stride[1]) phase = 0;
        }
      }
  }

  // R of one source row, from `margin` columns before the window.
  void repeat_row(const T* source, T* repeated) const {
    const int64_t first = p_.begin[1] - margin_;
    int64_t j = floor_div(first, p_.stride[1]), phase = first - j * p_.stride[1];
    for (int64_t i = 0; i < repeated_stride(); ++i) {
      repeated[i] = j >= 0 && j < p_.width ? source[j] : T{0};
      if (++phase == p_.stride[1]) phase = 0, ++j;
    }
  }

  // target[(y - band.row) * width + (x - window begin)] = output of band.channel; overwrites the band.
  void write(const DeconvBand& band, int64_t channel, const T* pattern, T* repeated, T* target) const {
    const T* x = static_cast<const T*>(p_.x) + (band.image * p_.outputs + channel) * p_.height * p_.width;
    const int64_t first = most(0, band.row / p_.stride[0] - (taps_[0] - 1));
    const int64_t last = least(p_.height - 1, (band.row + band.rows - 1) / p_.stride[0]);
    for (int64_t i = first; i <= last; ++i)
      repeat_row(x + i * p_.width, repeated + (i - first) * repeated_stride());
    for (int64_t y = band.row; y < band.row + band.rows; ++y, target += width_) {
      for (int64_t i = 0; i < width_; ++i) target[i] = 0;
      for (int64_t ty = 0; ty < taps_[0]; ++ty) {
        const int64_t source = y / p_.stride[0] - ty, ky = y % p_.stride[0] + ty * p_.stride[0];
        if (source < first || source > last || ky >= p_.kernel[0]) continue;
        add_row(pattern + ky * taps_[1] * width_, repeated + (source - first) * repeated_stride(), target);
      }
    }
  }

 private:
  void add_row(const T* pattern, const T* repeated, T* target) const {
    for (int64_t tx = 0; tx < taps_[1]; ++tx)
      accumulate(width_, partial(tx), pattern + tx * width_, shifted(repeated, tx), target);
  }

  const DeconvParams& p_;
  const int64_t taps_[2];
  const int64_t width_, margin_;
};

}  // namespace fcnkern::FCNKERN_ISA
