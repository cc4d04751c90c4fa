// Rows of source points: scores in, gradients out.
#pragma once

#include "upsample_cross_entropy_job.h"
#include "upsample_cross_entropy_pixel.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// Reads rows of scores as [class * stride + point], less the greatest class of each point, in the unit of T;
// at [classes] their least, as Block has it.
// What lies past the points is left as it is, and must be finite.
template <class T>
class ScoreRows {
 public:
  ScoreRows(Carver& carver, const Job<T>& job)
      : job_(job),
        stride_(job.point_stride()),
        spare_(carver.take<T>(stride_)),
        greatest_(carver.take<T>(stride_)) {}

  // Address of a point's score of class 0 in the row after next, or in the last one; the next class's lies
  // class_bytes() further.
  const char* ahead(int64_t n, int64_t row, int64_t point) const {
    const Upsampling& u = job_.p.upsampling;
    const int64_t later = row + 2 < u.rows.n_in ? row + 2 : u.rows.n_in - 1;
    const int64_t x = job_.columns.origin + point, inside = x < 0 ? 0 : x;
    const int64_t offset =
        n * u.scores.strides[0] + later * u.scores.strides[2] + inside * u.scores.strides[3];
    return static_cast<const char*>(u.scores.data) + offset * element_bytes();
  }
  int64_t class_bytes() const { return job_.p.upsampling.scores.strides[1] * element_bytes(); }

  // Row `row` of image n; it may lie one outside.
  void read(int64_t n, int64_t row, T* out) const {
    const ResampleAxis& y = job_.p.upsampling.rows;
    const bool outside = row < 0 || row >= y.n_in;
    if (outside && y.zero) {
      std::memset(out, 0, (job_.p.upsampling.scores.c + 1) * stride_ * sizeof(T));
      return;
    }
    const int64_t inside = row < 0 ? 0 : row >= y.n_in ? y.n_in - 1 : row;
    for (int64_t c = 0; c < job_.p.upsampling.scores.c; ++c) {
      T* scores = out + c * stride_;
      read_class(n, c, inside, scores);
      if (outside) {
        read_class(n, c, row < 0 && y.n_in > 1 ? 1 : inside, spare_);
        multiply_by_zero(spare_, scores, job_.columns.points);
      }
    }
    subtract_greatest(out, out + job_.p.upsampling.scores.c * stride_);
  }

 private:
  int64_t element_bytes() const {
    const DType type = job_.p.upsampling.scores.type;
    return type == DType::kF64 ? 8 : type == DType::kF32 ? 4 : 2;
  }

  // No finite score may become infinite, as one of a class that is masked by the lowest number would: a tap of
  // weight 0 would make it NaN.
  static constexpr T kLowest = static_cast<T>(sizeof(T) == sizeof(double) ? -1e300 : -1e38);

  // Both loops go class by class, so that no vector waits for the one before it.
  void subtract_greatest(T* out, T* least) const {
    const int64_t points = job_.columns.points;
    T* greatest = greatest_;
    for (int64_t j = 0; j < stride_; ++j) greatest[j] = -static_cast<T>(INFINITY);
    for (const T* scores = out; scores != least; scores += stride_)
      for (int64_t j = 0; j < points; j += kLanes)
        store(greatest + j, vmax(load(scores + j), load(greatest + j)));
    std::memset(least, 0, stride_ * sizeof(T));
    for (T* scores = out; scores != least; scores += stride_)
      for (int64_t j = 0; j < points; j += kLanes) {
        const Vec<T> given = load(scores + j);
        Vec<T> score = (given - load(greatest + j)) * Unit<T>::kPerNat;
        score = given > -static_cast<T>(INFINITY) ? vmax(splat(kLowest), score) : score;  // keeps NaN
        store(scores + j, score);
        store(least + j, vmin(score, load(least + j)) + score * 0);
      }
  }

  void read_class(int64_t n, int64_t c, int64_t row, T* out) const {
    const UpsampleCrossEntropyParams& p = job_.p;
    const int64_t offset = n * p.upsampling.scores.strides[0] + c * p.upsampling.scores.strides[1] +
                           row * p.upsampling.scores.strides[2];
    if constexpr (sizeof(T) == sizeof(double)) {
      convert(static_cast<const double*>(p.upsampling.scores.data) + offset, out);
    } else {
      switch (p.upsampling.scores.type) {
        case DType::kBF16:
          return convert(static_cast<const BFloat16*>(p.upsampling.scores.data) + offset, out);
        case DType::kF16:
          return convert(static_cast<const Float16*>(p.upsampling.scores.data) + offset, out);
        default:
          return convert(static_cast<const float*>(p.upsampling.scores.data) + offset, out);
      }
    }
  }

  // Points outside repeat the border's score, or are 0.
  template <class S>
  void convert(const S* scores, T* out) const {
    const ResampleAxis& x = job_.p.upsampling.columns;
    const int64_t origin = job_.columns.origin, stride = job_.p.upsampling.scores.strides[3];
    const int64_t first = origin < 0 ? -origin : 0;
    const int64_t end = x.n_in - origin < job_.columns.points ? x.n_in - origin : job_.columns.points;
    const S* source = scores + origin * stride;
    if (stride == 1)
      for (int64_t j = first; j < end; ++j) out[j] = static_cast<T>(source[j]);
    else
      for (int64_t j = first; j < end; ++j) out[j] = static_cast<T>(source[j * stride]);
    const T before = x.zero ? T{0} : static_cast<T>(scores[0]);
    const T after = x.zero ? T{0} : static_cast<T>(scores[(x.n_in - 1) * stride]);
    for (int64_t j = 0; j < first && j < job_.columns.points; ++j) out[j] = before;
    for (int64_t j = end > 0 ? end : 0; j < job_.columns.points; ++j) out[j] = after;
    if (x.zero) return;
    const T second = static_cast<T>(scores[x.n_in > 1 ? stride : 0]);
    if (first > 0) multiply_by_zero(&second, out, 1);
    if (end < job_.columns.points) multiply_by_zero(&after, out + end, 1);
  }

  // A clamped output lies on the border's point. Its other tap, the second point or the last one again, has
  // weight 0, but where zero weights multiply it makes infinity NaN. So do the points that stand for those
  // outside.
  void multiply_by_zero(const T* tap, T* point, int64_t n) const {
    if (job_.p.upsampling.skip_zero_weights) return;
    for (int64_t j = 0; j < n; ++j) point[j] += tap[j] * T{0};
  }

  const Job<T>& job_;
  int64_t stride_;
  T* spare_;
  T* greatest_;  // [point]
};

// The gradient that the first band of a part has for the row before the part's own.
template <class T>
struct Rim {
  T* points;  // [class * stride + point]
  bool is_set;
};

// Collects the gradients of rows of points and writes them to rows of the result, each once.
template <class T>
class GradientRows {
 public:
  GradientRows(Carver& carver, const Job<T>& job)
      : job_(job), stride_(job.point_stride()), size_(job.p.upsampling.scores.c * stride_) {
    top_ = carver.take<T>(size_);
    bottom_ = carver.take<T>(size_);
    pending_ = carver.take<T>(size_);
  }

  // The rim of the part that follows.
  void use_rim(Rim<T>& rim) {
    rim.is_set = false;
    rim_ = &rim;
  }

  // Accumulators of the band at hand, [class * stride + point].
  T* top() const { return top_; }
  T* bottom() const { return bottom_; }

  void begin(int64_t n, int64_t band) {
    image_ = n;
    next_row_ = job_.first_own_row(band);
    pending_row_ = -1;
  }

  // Before the first band.
  void clear_band() const {
    std::memset(top_, 0, size_ * sizeof(T));
    std::memset(bottom_, 0, size_ * sizeof(T));
  }

  // Takes up the accumulators of band `band` and clears them, while they are in the cache, for the next one.
  void end_band(int64_t band) {
    const int64_t row = job_.top_row(band), last = job_.p.upsampling.rows.n_in - 1;
    fold_columns(top_);
    fold_columns(bottom_);
    bool has_top = row >= 0 && row <= last, has_bottom = row + 1 >= 0 && row + 1 <= last;
    if (job_.folds_down(band)) add(bottom_, top_);
    if (job_.folds_up(band) && has_top) add(top_, bottom_);
    if (has_top) finish_row(row);
    if (has_bottom) {
      flush_pending();
      T* finished = pending_;
      pending_ = bottom_;
      bottom_ = finished;
      pending_row_ = row + 1;
    }
    clear_band();
  }

  // Writes what is left of an image, down to `row`.
  void end(int64_t row) {
    flush_pending();
    zero_rows(row);
  }

  // Adds the rim of the next part to a row that is written.
  void add_rim(int64_t n, int64_t row, const Rim<T>& rim) const {
    write(n, row, [&](T* out, int64_t at) { *out += rim.points[at]; });
  }

 private:
  void finish_row(int64_t row) {
    if (row < next_row_) {
      std::memcpy(rim_->points, top_, size_ * sizeof(T));
      rim_->is_set = true;
      return;
    }
    if (pending_row_ == row) {
      pending_row_ = -1;
      put(row, [&](int64_t at) { return top_[at] + pending_[at]; });
    } else {
      flush_pending();
      put(row, [&](int64_t at) { return top_[at]; });
    }
  }

  void flush_pending() {
    if (pending_row_ >= 0) put(pending_row_, [&](int64_t at) { return pending_[at]; });
    pending_row_ = -1;
  }

  template <class Value>
  void put(int64_t row, Value value) {
    zero_rows(row);
    write(image_, row, [&](T* out, int64_t at) { *out = value(at); });
    next_row_ = row + 1;
  }

  void zero_rows(int64_t end) {
    for (; next_row_ < end; ++next_row_)
      each_class(image_, next_row_, [&](T* out, int64_t stride, int64_t) {
        for (int64_t x = 0; x < job_.p.upsampling.columns.n_in; ++x) out[x * stride] = 0;
      });
  }

  // Calls visit(address in the result, index into a row of points) for the columns that have points; zeroes
  // others.
  template <class Visit>
  void write(int64_t n, int64_t row, Visit visit) const {
    const int64_t origin = job_.columns.origin, width = job_.p.upsampling.columns.n_in;
    const int64_t first = origin > 0 ? origin : 0;
    const int64_t end = origin + job_.columns.points < width ? origin + job_.columns.points : width;
    each_class(n, row, [&](T* out, int64_t stride, int64_t c) {
      for (int64_t x = 0; x < first; ++x) out[x * stride] = 0;
      for (int64_t x = first; x < end; ++x) visit(out + x * stride, c * stride_ + x - origin);
      for (int64_t x = end > 0 ? end : 0; x < width; ++x) out[x * stride] = 0;
    });
  }

  template <class Visit>
  void each_class(int64_t n, int64_t row, Visit visit) const {
    const int64_t classes = job_.p.upsampling.scores.c, height = job_.p.upsampling.rows.n_in,
                  width = job_.p.upsampling.columns.n_in;
    T* grad = static_cast<T*>(job_.p.grad);
    for (int64_t c = 0; c < classes; ++c) {
      if (job_.p.channels_last)
        visit(grad + (n * height + row) * width * classes + c, classes, c);
      else
        visit(grad + ((n * classes + c) * height + row) * width, int64_t{1}, c);
    }
  }

  // Points clamped from outside are the border's.
  void fold_columns(T* points) const {
    if (job_.p.upsampling.columns.zero) return;
    const int64_t origin = job_.columns.origin, last = job_.p.upsampling.columns.n_in - 1 - origin;
    for (int64_t c = 0; c < job_.p.upsampling.scores.c; ++c) {
      T* row = points + c * stride_;
      if (origin < 0) row[-origin] += row[0];
      if (last + 1 < job_.columns.points) row[last] += row[last + 1];
    }
  }

  void add(T* to, const T* from) const {
    for (int64_t i = 0; i < size_; ++i) to[i] += from[i];
  }

  const Job<T>& job_;
  int64_t stride_, size_;
  T *top_, *bottom_, *pending_;
  Rim<T>* rim_ = nullptr;
  int64_t image_ = 0, next_row_ = 0, pending_row_ = -1;
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
