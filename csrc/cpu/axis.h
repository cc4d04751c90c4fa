// One axis of a resampling cut into cells: runs of neighbouring outputs that read the same two source points.
// Along a cell the weight of the right point grows by a constant step, so a score is linear there.
#pragma once

#include <cmath>
#include <cstdint>

#include "upsampling.h"
#include "scratch.h"

namespace fcnkern::FCNKERN_ISA {

constexpr int kCellPixels = 8;  // longer runs are cut into equal cells of at most this many outputs

// The arrays are padded to a multiple of kLanes (at least one spare entry) with empty cells.
template <class T>
struct Cells {
  explicit Cells(const ResampleAxis& axis) : storage(layout(nullptr, axis.n_out)) {
    layout(storage.data(), axis.n_out);
    step = static_cast<T>(axis.step);
    for (int64_t output = 0; output < axis.n_out; ++output) append(axis, output);
    origin = static_cast<int32_t>(count > 0 ? point[0] : 0);
    for (int64_t cell = 0; cell < count; ++cell) point[cell] -= origin;
    points = count > 0 ? point[count - 1] + 2 : 0;
    for (int64_t cell = count; cell < capacity(axis.n_out); ++cell) {
      left[cell] = right[cell] = -1;
      point[cell] = first[cell] = pixels[cell] = 0;
      weight[cell] = 0;
    }
  }

  static int64_t capacity(int64_t n_out) { return (n_out + kLanes) / kLanes * kLanes; }

  int64_t count = 0;
  int max_pixels = 0;
  T step = 0;
  // The cells use a row of neighbouring points: point p is the source index origin + p, which may lie one
  // outside the source on either side. sliding: cell i lies between points i and i + 1, for all i.
  int32_t origin = 0;
  int32_t points = 0;
  bool sliding = true;

  int32_t* left = nullptr;  // source index, -1: outside, score 0
  int32_t* right = nullptr;
  int32_t* point = nullptr;   // the left point
  int32_t* first = nullptr;   // first output
  int32_t* pixels = nullptr;  // outputs, 1..kCellPixels; 0 in the padding
  T* weight = nullptr;  // weight of `right` at the first output; equals 0 exactly where that tap is absent

 private:
  size_t layout(char* block, int64_t n_out) {
    Carver carver(block);
    const size_t n = static_cast<size_t>(capacity(n_out));
    left = carver.take<int32_t>(n);
    right = carver.take<int32_t>(n);
    point = carver.take<int32_t>(n);
    first = carver.take<int32_t>(n);
    pixels = carver.take<int32_t>(n);
    weight = carver.take<T>(n);
    return carver.used();
  }

  void append(const ResampleAxis& axis, int64_t output) {
    constexpr double kSnap = 1e-9;  // rounding of step and shift must not open a cell before its left point
    const double source = static_cast<double>(output) * axis.step + axis.shift;
    double floor = std::floor(source + kSnap);
    double frac = source - floor < kSnap ? 0.0 : source - floor;
    const double last = static_cast<double>(axis.n_in - 1);
    const bool clamped = !axis.zero && (floor < 0 || floor >= last);  // both points are the border's
    if (clamped) {
      floor = floor < 0 ? -1 : last;
      frac = 0;
    }
    const bool same_run = count > 0 && floor == run_;
    if (same_run && pixels[count - 1] < longest(axis.step)) {
      ++pixels[count - 1];
    } else {
      if (count > 0 && floor != run_ + 1) sliding = false;
      if (same_run) {
        if (!clamped) frac = run_weight_ + static_cast<double>(output - run_output_) * axis.step;
      } else {
        run_output_ = output;
        run_weight_ = frac;
      }
      run_ = floor;
      left[count] = source_index(axis, floor);
      right[count] = source_index(axis, floor + 1);
      point[count] = static_cast<int32_t>(floor);
      first[count] = static_cast<int32_t>(output);
      pixels[count] = 1;
      weight[count] = static_cast<T>(frac);
      ++count;
    }
    if (pixels[count - 1] > max_pixels) max_pixels = pixels[count - 1];
  }

  // Outputs of a cell where a run has 1 / step of them.
  static int longest(double step) {
    if (!(step > 0) || step * kCellPixels >= 1) return kCellPixels;
    const double run = std::ceil(1 / step - 1e-6);
    return static_cast<int>(std::ceil(run / std::ceil(run / kCellPixels)));
  }

  static int32_t source_index(const ResampleAxis& axis, double index) {
    const double last = static_cast<double>(axis.n_in - 1);
    if (axis.zero) return index < 0 || index > last ? -1 : static_cast<int32_t>(index);
    return static_cast<int32_t>(index < 0 ? 0 : index > last ? last : index);
  }

  double run_ = 0, run_weight_ = 0;
  int64_t run_output_ = 0;
  Scratch storage;
};

}  // namespace fcnkern::FCNKERN_ISA
