// Confusion matrix of two label maps. Reads every label once, writes the matrix; per thread one histogram
// (two for few classes). Bound: one increment per pixel, one per eight where both maps are uniform.
// Counts are integers, so any split over threads gives the same matrix.
#include "confusion_matrix.h"

#include "histogram.h"
#include "scratch.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

constexpr int64_t kMinPixels = 1 << 16;

// The pixels of both maps as `rows` runs of `length`, each with one stride; one run where neither has gaps.
struct Runs {
  int64_t rows, length;
  const ConfusionMatrixParams& params;

  explicit Runs(const ConfusionMatrixParams& p) : rows(p.n * p.h), length(p.w), params(p) {
    if (is_dense(p.prediction) && is_dense(p.target)) {
      length *= rows;
      rows = 1;
    }
  }

  bool is_dense(const LabelMap& map) const {
    return map.strides[2] == 1 && map.strides[1] == params.w && map.strides[0] == params.h * params.w;
  }

  int64_t offset(const LabelMap& map, int64_t row, int64_t x) const {
    return row / params.h * map.strides[0] + row % params.h * map.strides[1] + x * map.strides[2];
  }
};

// Counts the chunks first..last-1; stops at the first invalid label.
template <class Narrow>
void count_chunks(const Runs& runs, int64_t first, int64_t last, Tally& tally, int thread) {
  const ConfusionMatrixParams& p = runs.params;
  const int64_t per_row = (runs.length + kChunk - 1) / kChunk;
  const int64_t* ignore = p.has_ignore ? &p.ignore_index : nullptr;
  Histogram histogram = tally.histogram(thread);
  alignas(64) Narrow prediction[kChunk], target[kChunk];
  for (int64_t chunk = first; chunk < last; ++chunk) {
    const int64_t row = chunk / per_row, x = chunk % per_row * kChunk;
    const int n = static_cast<int>(runs.length - x < kChunk ? runs.length - x : kChunk);
    const int64_t from = runs.offset(p.prediction, row, x), at = runs.offset(p.target, row, x);
    narrow<Narrow>(p.prediction, from, n, p.num_classes, nullptr, prediction);
    narrow<Narrow>(p.target, at, n, p.num_classes, ignore, target);
    const int bad = histogram.add(prediction, target, n);
    if (bad < 0) continue;
    const bool in_target = target[bad] == static_cast<Narrow>(-1);
    const int64_t value = in_target ? label_at(p.target, at + bad * p.target.strides[2])
                                    : label_at(p.prediction, from + bad * p.prediction.strides[2]);
    return tally.record(thread, {row * runs.length + x + bad, value, in_target});
  }
}

// Enough pixels per thread to be worth waking it, and to outweigh clearing and adding up its histogram.
int worthwhile_threads(int64_t pixels, int64_t classes, int threads) {
  const int64_t most = pixels / (kMinPixels + classes * classes);
  return most < 1 ? 1 : most < threads ? static_cast<int>(most) : threads;
}

}  // namespace

LabelError confusion_matrix(const ConfusionMatrixParams& p) {
  const Runs runs(p);
  const int64_t chunks = runs.rows * ((runs.length + kChunk - 1) / kChunk);
  const int threads = worthwhile_threads(p.n * p.h * p.w, p.num_classes, p.threads);
  const auto count = p.num_classes <= kMaxByteClasses ? &count_chunks<uint8_t> : &count_chunks<uint16_t>;
  Tally tally(p.num_classes, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; ++t) count(runs, chunks * t / threads, chunks * (t + 1) / threads, tally, t);
  return tally.finish(p.matrix);
}

}  // namespace fcnkern::FCNKERN_ISA
