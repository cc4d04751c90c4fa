// Argmax with the definition's own arithmetic, output by output: for double scores, and for what the vectorised
// kernel leaves out: NaN, infinities, numbers near the end of the range. Bound: two multiplications, an addition, a
// compare and two selects per output and class; with confidence all of it twice and an exponential.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "argmax_rows.h"
#include "scratch.h"
#include "simd.h"

namespace fcnkern::FCNKERN_ISA {

// The two source points of one output and their weights.
template <class T>
struct Taps {
  int64_t first, second;
  T first_weight, second_weight;

  Taps(const ResampleAxis& axis, int64_t output) {
    const double last = static_cast<double>(axis.n_in - 1);
    double source = static_cast<double>(output) * axis.step + axis.shift;
    if (!axis.zero) source = source < 0 ? 0 : source > last ? last : source;
    const double base = std::floor(source);
    const bool has_first = !axis.zero || (base >= 0 && base <= last);
    const bool has_second = !axis.zero || (base >= -1 && base < last);
    first_weight = has_first ? static_cast<T>(1 - (source - base)) : 0;
    second_weight = has_second ? static_cast<T>(source - base) : 0;
    first = static_cast<int64_t>(base < 0 ? 0 : base > last ? last : base);
    second = static_cast<int64_t>(base + 1 < 0 ? 0 : base + 1 > last ? last : base + 1);
  }
};

template <class T>
class ExactArgmax {
 public:
  ExactArgmax(const ArgmaxJob& job)
      : job_(job), plan_(job.upsampling), width_(plan_.columns.n_out), storage_(layout(nullptr)) {
    layout(storage_.data());
    for (int64_t x = 0; x < width_; ++x) {
      const Taps<T> taps(plan_.columns, x);
      first_[x] = static_cast<int32_t>(taps.first);
      second_[x] = static_cast<int32_t>(taps.second);
      first_weight_[x] = taps.first_weight;
      second_weight_[x] = taps.second_weight;
    }
  }

  // Labels and confidences of the outputs begin..end-1 of row y of image n.
  void row(int thread, int64_t n, int64_t y, int64_t begin, int64_t end) const {
    const Lines line = lines(thread);
    const Taps<T> taps(plan_.rows, y);
    const int64_t classes = plan_.scores.c;
    for (int64_t c = 0; c < classes; ++c) {
      upsample(n, c, taps, line, begin, end);
      take_better(line, c, begin, end);
    }
    char* labels = reinterpret_cast<char*>(line.narrow);
    if (job_.wide())
      narrow(line.label, reinterpret_cast<uint16_t*>(labels), begin, end);
    else
      narrow(line.label, reinterpret_cast<uint8_t*>(labels), begin, end);
    job_.sink.take(job_.sink.context, thread,
                   {n, y, begin, 1, static_cast<int>(end - begin), labels, 0});
    if (job_.confidence == nullptr) return;
    for (int64_t x = begin; x < end; ++x) line.total[x] = 0;
    for (int64_t c = 0; c < classes; ++c) {
      upsample(n, c, taps, line, begin, end);
      for (int64_t x = begin; x < end; ++x) line.total[x] += std::exp(line.score[x] - line.best[x]);
    }
    T* confidence = static_cast<T*>(job_.confidence) + (n * plan_.rows.n_out + y) * width_;
    for (int64_t x = begin; x < end; ++x) confidence[x] = 1 / line.total[x];
  }

 private:
  using Index = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;  // as wide as T, so that lanes match

  struct Lines {  // of one thread
    T *source, *score, *best, *total;
    Index* label;
    uint16_t* narrow;
  };

  size_t layout(char* block) {
    Carver carver(block);
    const size_t width = static_cast<size_t>(width_);
    first_ = carver.take<int32_t>(width);
    second_ = carver.take<int32_t>(width);
    first_weight_ = carver.take<T>(width);
    second_weight_ = carver.take<T>(width);
    lines_ = carver.used();
    carve_lines(carver);
    line_bytes_ = carver.used() - lines_;
    return lines_ + line_bytes_ * static_cast<size_t>(job_.threads);
  }

  Lines carve_lines(Carver& carver) const {
    const size_t width = static_cast<size_t>(width_);
    Lines line;
    line.source = carver.take<T>(static_cast<size_t>(plan_.scores.w));
    line.score = carver.take<T>(width);
    line.best = carver.take<T>(width);
    line.total = carver.take<T>(width);
    line.label = carver.take<Index>(width);
    line.narrow = carver.take<uint16_t>(width);
    return line;
  }

  Lines lines(int thread) const {
    Carver carver(storage_.data() + lines_ + line_bytes_ * static_cast<size_t>(thread));
    return carve_lines(carver);
  }

  T blend(T a, T wa, T b, T wb) const {
    const T first = plan_.skip_zero_weights && wa == 0 ? 0 : a * wa;
    const T second = plan_.skip_zero_weights && wb == 0 ? 0 : b * wb;
    return first + second;
  }

  template <class Stored>
  void blend_rows(const Stored* a, const Stored* b, const Taps<T>& taps, T* out) const {
    const int64_t stride = plan_.scores.strides[3];
    for (int64_t x = 0; x < plan_.scores.w; ++x)
      out[x] = blend(static_cast<T>(a[x * stride]), taps.first_weight, static_cast<T>(b[x * stride]),
                     taps.second_weight);
  }

  // line.score of one class.
  void upsample(int64_t n, int64_t c, const Taps<T>& taps, const Lines& line, int64_t begin, int64_t end) const {
    const Scores& scores = plan_.scores;
    const int64_t plane = n * scores.strides[0] + c * scores.strides[1];
    const int64_t a = plane + taps.first * scores.strides[2], b = plane + taps.second * scores.strides[2];
    const auto run = [&](auto stored) {
      const auto* data = static_cast<const decltype(stored)*>(scores.data);
      blend_rows(data + a, data + b, taps, line.source);
    };
    if constexpr (sizeof(T) == 8) {
      run(double{});
    } else {
      if (scores.type == DType::kF32) run(float{});
      if (scores.type == DType::kBF16) run(BFloat16{});
      if (scores.type == DType::kF16) run(Float16{});
    }
    for (int64_t x = begin; x < end; ++x)
      line.score[x] =
          blend(line.source[first_[x]], first_weight_[x], line.source[second_[x]], second_weight_[x]);
  }

  // The first NaN wins, as in torch.argmax; without one the lowest class of the largest score.
  static void take_better(const Lines& line, int64_t c, int64_t begin, int64_t end) {
    T *best = line.best, *score = line.score;
    Index* label = line.label;
    for (int64_t x = begin; x < end; ++x) {
      const bool better = c == 0 || (!(score[x] <= best[x]) && best[x] == best[x]);
      best[x] = better ? score[x] : best[x];
      label[x] = better ? static_cast<Index>(c) : label[x];
    }
  }

  template <class Label>
  static void narrow(const Index* labels, Label* out, int64_t begin, int64_t end) {
    for (int64_t x = begin; x < end; ++x) out[x - begin] = static_cast<Label>(labels[x]);
  }

  const ArgmaxJob& job_;
  const Upsampling& plan_;
  int64_t width_;
  int32_t *first_ = nullptr, *second_ = nullptr;
  T *first_weight_ = nullptr, *second_weight_ = nullptr;
  size_t lines_ = 0, line_bytes_ = 0;
  Scratch storage_;
};

}  // namespace fcnkern::FCNKERN_ISA
