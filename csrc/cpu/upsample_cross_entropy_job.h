// What all threads of one upsample_cross_entropy call share.
#pragma once

#include "upsample_cross_entropy.h"
#include "upsample_cross_entropy_block.h"
#include "upsample_cross_entropy_columns.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// A band is the cells between two neighbouring rows of source points: the unit that threads share out. A
// source row's gradient is the sum of at most two terms, one from the band above and one from the band below,
// and each is formed by one thread in a fixed order: so no split over threads changes a bit.
template <class T>
struct Job {
  explicit Job(const UpsampleCrossEntropyParams& params)
      : p(params),
        rows(params.upsampling.rows),
        columns(params.upsampling.columns),
        storage(layout(nullptr)) {
    layout(storage.data());
    for (int64_t cell = 0; cell < rows.count; ++cell)
      if (cell == 0 || rows.point[cell] != rows.point[cell - 1])
        band_first[bands++] = static_cast<int32_t>(cell);
    band_first[bands] = static_cast<int32_t>(rows.count);
    touch_clamped(rows, params.upsampling.rows);
    touch_clamped(columns, params.upsampling.columns);
    fill_weights();
  }

  // Source row above band b of an image; may lie one outside.
  int64_t top_row(int64_t b) const { return rows.origin + rows.point[band_first[b]]; }

  // Where the points above and below band b are clamped to one row, all of the band's gradient goes to that
  // row.
  bool folds_down(int64_t b) const { return !p.upsampling.rows.zero && top_row(b) < 0; }
  bool folds_up(int64_t b) const {
    return !p.upsampling.rows.zero && top_row(b) >= p.upsampling.rows.n_in - 1;
  }

  // The first source row of an image that bands b and on complete: those before reach down to the row above
  // it.
  int64_t first_own_row(int64_t b) const {
    if (b == 0) return 0;
    const int64_t row = top_row(b - 1) + 2;
    return row < 0 ? 0 : row > p.upsampling.rows.n_in ? p.upsampling.rows.n_in : row;
  }

  const UpsampleCrossEntropyParams& p;
  Cells<T> rows;
  Columns<T> columns;
  int64_t bands = 0;              // per image
  int32_t* band_first = nullptr;  // [band], its first cell of `rows`; one more at the end
  LossWeights<T> weights{};

  // Elements of a row of points, all classes.
  int64_t rim_size() const { return p.grad == nullptr ? 0 : p.upsampling.scores.c * point_stride(); }

  // Elements from class to class in a row of points; whole vectors may be read and written from every point.
  int64_t point_stride() const { return (columns.points + 2 * kLanes) / kLanes * kLanes; }

 private:
  size_t layout(char* block) {
    Carver carver(block);
    band_first = carver.take<int32_t>(rows.count + 1);
    lse = carver.take<T>(lse_entries());
    hard = carver.take<T>(p.upsampling.scores.c);
    soft = carver.take<T>(p.upsampling.scores.c);
    weight = carver.take<T>(p.upsampling.scores.c);
    return carver.used();
  }

  // Outputs clamped from before the first point read only the stand-in of the point before it: where zero
  // weights multiply, its neighbour must not turn an infinity into NaN.
  static constexpr T kTouch = static_cast<T>(1e-30);
  template <class C>
  static void touch_clamped(C& cells, const ResampleAxis& axis) {
    for (int64_t cell = 0; !axis.zero && cell < cells.count; ++cell)
      if (cells.origin + cells.point[cell] < 0) cells.weight[cell] = kTouch;
  }

  // So many that 8-bit labels need no check.
  int64_t lse_entries() const { return p.upsampling.scores.c < 255 ? 256 : p.upsampling.scores.c + 1; }

  // The definition of F.cross_entropy: (1 - e) w[t] (-log p[t]) + e / C * sum over c of w[c] (-log p[c]).
  void fill_weights() {
    const double smoothing = p.label_smoothing,
                 share = smoothing / static_cast<double>(p.upsampling.scores.c);
    double total = 0;
    for (int64_t c = 0; c < p.upsampling.scores.c; ++c)
      total += p.class_weight != nullptr ? p.class_weight[c] : 1.0;
    for (int64_t c = 0; c < p.upsampling.scores.c; ++c) {
      const double w = p.class_weight != nullptr ? p.class_weight[c] : 1.0;
      weight[c] = static_cast<T>(w);
      hard[c] = static_cast<T>((1 - smoothing) * w);
      soft[c] = static_cast<T>(share * w);
      lse[c] = static_cast<T>((1 - smoothing) * w + share * total);
    }
    for (int64_t c = p.upsampling.scores.c; c < lse_entries(); ++c) lse[c] = 0;
    weights = {lse, hard, smoothing > 0 ? soft : nullptr, weight, p.class_weight == nullptr};
  }

  T *lse = nullptr, *hard = nullptr, *soft = nullptr, *weight = nullptr;
  Scratch storage;
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
