// Confusion matrix of two label maps, or of upsampled scores and a label map. Reads every label once, writes
// the matrix; per thread one histogram (several copies for few classes). Bounds: one increment per pixel, which
// is one store and so one cycle, or one per eight where both maps are uniform; reading 16 bytes a pixel of
// 64-bit labels, which are fetched while the pixels before them are counted; from scores, the argmax. Counts
// are integers: any split over threads gives the same matrix.
#include "confusion_matrix.h"

#include "histogram.h"
#include "scratch.h"
#include "threads.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

constexpr int64_t kMinPixels = 1 << 16;

// The pixels of both maps as `rows` runs of `length`, each with one stride; one run where neither has gaps.
struct Runs {
  int64_t rows, length;
  const ConfusionMatrixParams& params;
  const LabelMap& prediction;

  Runs(const ConfusionMatrixParams& p, const LabelMap& predicted)
      : rows(p.n * p.h), length(p.w), params(p), prediction(predicted) {
    if (is_dense(prediction) && is_dense(p.target)) {
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

// Adds up to kChunk pixels. The target's are taken from its element `at` on, and are number `position` and so on.
template <class Narrow, class ValueOf>
bool count(const ConfusionMatrixParams& p, Narrow* prediction, int64_t at, int64_t position, int n,
           Upcoming next_prediction, const ValueOf& predicted_value, Tally& tally, int thread) {
  alignas(64) Narrow target[kChunk];
  narrow<Narrow>(p.target, at, n, p.num_classes, p.has_ignore ? &p.ignore_index : nullptr, target);
  const int bad = tally.histogram(thread).add(prediction, target, n, next_prediction,
                                              Upcoming(p.target, at + n * p.target.strides[2]));
  if (bad < 0) return true;
  const bool in_target = target[bad] == static_cast<Narrow>(-1);
  const int64_t value = in_target ? label_at(p.target, at + bad * p.target.strides[2]) : predicted_value(bad);
  tally.record(thread, {position + bad, value, in_target});
  return false;
}

// Adds n <= kChunk pixels of two rows without gaps in whatever order is quickest. False: nothing is counted, as
// a label is invalid or does not fit.
template <class Narrow>
bool count_folded(const ConfusionMatrixParams& p, const LabelMap& map, int64_t from, int64_t at, int n,
                  Histogram histogram) {
  alignas(64) Narrow prediction[kChunk], target[kChunk];
  return fold<Narrow>(map, from, n, p.num_classes, nullptr, prediction) &&
         fold<Narrow>(p.target, at, n, p.num_classes, p.has_ignore ? &p.ignore_index : nullptr, target) &&
         histogram.add(prediction, target, n, Upcoming(map, from + n), Upcoming(p.target, at + n)) < 0;
}

// Counts the chunks first..last-1; stops at the first invalid label.
template <class Narrow>
void count_chunks(const Runs& runs, int64_t first, int64_t last, Tally& tally, int thread) {
  const LabelMap &map = runs.prediction, &target = runs.params.target;
  const int64_t per_row = (runs.length + kChunk - 1) / kChunk, step = map.strides[2];
  const bool alike = map.type == target.type && step == 1 && target.strides[2] == 1;
  alignas(64) Narrow prediction[kChunk];
  for (int64_t chunk = first; chunk < last; ++chunk) {
    const int64_t row = chunk / per_row, x = chunk % per_row * kChunk;
    const int n = static_cast<int>(runs.length - x < kChunk ? runs.length - x : kChunk);
    const int64_t from = runs.offset(map, row, x), at = runs.offset(target, row, x);
    if (alike && count_folded<Narrow>(runs.params, map, from, at, n, tally.histogram(thread))) continue;
    narrow<Narrow>(map, from, n, runs.params.num_classes, nullptr, prediction);
    const auto value = [&](int i) { return label_at(map, from + i * step); };
    const Upcoming next(map, from + n * step);
    if (!count(runs.params, prediction, at, row * runs.length + x, n, next, value, tally, thread)) return;
  }
}

// Enough pixels per thread to be worth waking it, and to outweigh clearing and adding up its histogram.
int worthwhile_threads(int64_t pixels, int64_t classes, int threads) {
  const int64_t most = pixels / (kMinPixels + classes * classes);
  return most < 1 ? 1 : most < threads ? static_cast<int>(most) : threads;
}

struct ScoresTally {
  const ConfusionMatrixParams& params;
  Tally& tally;
};

// Labels made of scores are always classes.
template <class Narrow>
void take(void* context, int thread, const LabelRows& rows) {
  const auto& [p, tally] = *static_cast<const ScoresTally*>(context);
  const auto no_value = [](int) { return int64_t{-1}; };
  for (int row = 0; row < rows.rows; ++row) {
    Narrow* labels = reinterpret_cast<Narrow*>(rows.labels + row * rows.row_bytes);
    const int64_t line = rows.n * p.target.strides[0] + (rows.y + row) * p.target.strides[1];
    const int64_t position = (rows.n * p.h + rows.y + row) * p.w + rows.x;
    for (int x = 0; x < rows.width; x += kChunk) {
      const int n = rows.width - x < kChunk ? rows.width - x : kChunk;
      const int64_t at = line + (rows.x + x) * p.target.strides[2];
      const Upcoming next(p.target, at + n * p.target.strides[2]);
      count(p, labels + x, at, position + x, n, next, no_value, tally, thread);
    }
  }
}

}  // namespace

LabelError confusion_of_labels(const ConfusionMatrixParams& p, const LabelMap& prediction) {
  const Runs runs(p, prediction);
  const int64_t chunks = runs.rows * ((runs.length + kChunk - 1) / kChunk);
  const int threads = worthwhile_threads(p.n * p.h * p.w, p.num_classes, p.threads);
  const auto count_all = p.num_classes <= kByteClasses ? &count_chunks<uint8_t> : &count_chunks<uint16_t>;
  Tally tally(p.num_classes, threads);
  for_each_share(chunks, threads, [&](int64_t first, int64_t last, int thread) {
    count_all(runs, first, last, tally, thread);
  });
  return tally.finish(p.matrix);
}

LabelError confusion_of_scores(const ConfusionMatrixParams& p, const Upsampling& prediction) {
  const int threads = argmax_threads(prediction, p.threads);
  Tally tally(p.num_classes, threads);
  ScoresTally context{p, tally};
  const auto take_rows = p.num_classes <= kByteClasses ? &take<uint8_t> : &take<uint16_t>;
  argmax_rows({prediction, nullptr, threads, {take_rows, &context}});
  return tally.finish(p.matrix);
}

}  // namespace fcnkern::FCNKERN_ISA
