// The kernel of the fused loss over cells.
#pragma once

#include "ptx.cuh"
#include "upsample_cross_entropy_cells.cuh"
#include "upsample_cross_entropy_label_bytes.cuh"

namespace fcnkern::cuda {
namespace {

// Of 168 registers a thread, for which eleven ask, twelve fit too.
constexpr int kWarpsPerProcessor = 11;

// The column of cells that a lane walks down.
struct Column {
  int n, part, x;  // the image; the part of a cell, an index of the tables of the x axis; the cell
  bool live, has_left, has_right;

  __device__ __forceinline__ Column(const LossCells& p, int lane) : live(lane < p.lanes) {
    const int f = min(lane, p.lanes - 1);
    n = f / p.columns, part = p.x_begin * p.x.parts + f - n * p.columns, x = part / p.x.parts;
    has_left = x > 0, has_right = x < p.width;
  }
};

template <class Score, class Offset>
__device__ __forceinline__ CellScores<Score, Offset> scores_around(const LossCells& p, const Column& column, int y) {
  const int64_t* stride = p.scores.stride;
  const Score* image = static_cast<const Score*>(p.scores.data) + column.n * stride[0];
  const Score* top = image + max(y - 1, 0) * stride[2];
  const Score* bottom = image + min(y, p.height - 1) * stride[2];
  const int64_t left = max(column.x - 1, 0) * stride[3], right = min(column.x, p.width - 1) * stride[3];
  const bool has_top = y > 0, has_bottom = y < p.height;
  CellScores<Score, Offset> scores{
      {opaque_global(top + left), opaque_global(top + right), opaque_global(bottom + left),
       opaque_global(bottom + right)},
      {column.has_left && has_top, column.has_right && has_top, column.has_left && has_bottom,
       column.has_right && has_bottom},
      {}, p.zero, static_cast<Offset>(stride[1]), {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) scores.factor[i] = opaque(p.zero && !scores.exists[i] ? 0.0f : 1.0f);
  return scores;
}

// The pixels of a cell, or of a part of it.
__device__ __forceinline__ Window window_of(const LossCells& p, const Column& column, int y_part) {
  return {column.n, p.y.first[y_part], p.x.first[column.part], p.y.counts[y_part], column.live ? p.x.counts[column.part] : 0};
}

// Where the gradient of a row of cells goes.
template <class Offset>
__device__ __forceinline__ ShareTargets<Offset> targets_of(const LossCells& p, const Column& column, int row, int begin, int y) {
  const int64_t strip = blockIdx.x, program = blockIdx.y * static_cast<int64_t>(p.strips) + strip;
  const bool seam = row < begin + p.y.parts && blockIdx.y > 0, owner = column.live && column.has_right && column.part % p.x.parts == 0;
  float* own = p.grad + column.n * p.grad_stride[0] + min(column.x, p.width - 1) * p.grad_stride[3];
  ShareTargets<Offset> t;
  t.top = seam ? p.seam + program * p.pixels.classes * kWarp + threadIdx.x : own + max(y - 1, 0) * p.grad_stride[2];
  t.bottom = own + min(y, p.height - 1) * p.grad_stride[2];
  t.rim = p.rim + (strip * p.rows + row) * 2 * p.pixels.classes;
  t.step = static_cast<Offset>(p.grad_stride[1]), t.top_step = seam ? kWarp : t.step;
  t.stores_top = owner && y > 0, t.stores_bottom = owner && y < p.height, t.stores_rim = threadIdx.x == 0;
  t.adds_top = row > begin, t.adds_bottom = row % p.y.parts > 0, t.adds_rim = false;
  t.parts = p.x.parts;
  return t;
}

// Loss and gradient of one band of a strip of cells.
//
// A cell is the part of the output between four neighbouring scores: at most K x K pixels (a larger one is cut into
// parts). A block is one warp: 32 cells side by side, counted over the images, and it walks down a band of cell rows. For
// each row it (1) reads the labels and counts for each class and cell where they lie, in memory of its own; (2) sums the
// exponentials of all classes for the cell's pixels, which stay in registers whatever the number of classes; (3) takes
// logarithms for the loss and reciprocals for the gradient; (4) goes over the classes again for the moments of the
// probabilities, less those of the labels: they are the gradients of the four corners. Neighbouring lanes exchange the
// shares of common points; what crosses a border of blocks goes to the seam and the rim, which the finishing kernel adds
// in a fixed order. Steep and non-finite cells go pixel by pixel instead.
//
// PLAIN, is_plain: all pixels that count do alike. Their labels are bytes, and all modes' branches are gone.
//
// Reads the labels once and the scores three times (the last two from the caches); writes the gradient of its points
// (twice; once to the caches), its seam, its rim and three partial sums. Per class and cell 6 exponentials (8 where the
// twist is not gentle); per pixel half a logarithm and one reciprocal, or one of each where pixels are weighted.
// Instruction issue bounds it: the arithmetic is 3.5 operations a pixel and class, the machine code of PLAIN 9.4
// instructions at 19 classes and x8, 19.5 at 150 and x4 (benchmarks/results/compiled_cuda.md).
template <class Score, int K, bool PLAIN>
__global__ void __launch_bounds__(kWarp, kWarpsPerProcessor) upsample_cross_entropy_cells_kernel(const LossCells p) {
  FCNKERN_DYNAMIC_SHARED(uint32_t, shared);
  const LossPixels& pixels = p.pixels;
  const int classes = pixels.classes, lane = threadIdx.x, first = blockIdx.x * kWarp, band = blockIdx.y;
  const int64_t program = static_cast<int64_t>(band) * p.strips + blockIdx.x;
  using Offset = std::conditional_t<PLAIN, int, int64_t>;
  const bool weighted = !PLAIN && pixels.pixel_weight != nullptr;
  const bool has_factors = !PLAIN && (weighted || pixels.class_weight != nullptr);
  const bool smooth = !PLAIN && pixels.smoothing > 0.0f, words_shared = PLAIN || p.counts == nullptr;
  const int words = (classes + 2) * kWarp * (weighted ? 4 : 1);
  float* factors = has_factors ? reinterpret_cast<float*>(shared) + lane : nullptr;
  uint32_t* own_words = words_shared ? shared + (has_factors ? K * K * kWarp : 0) : p.counts + program * words;
  if (words_shared)
#pragma unroll 1
    for (int i = lane; i < words; i += kWarp) own_words[i] = 0;
  const LabelSums<PLAIN> sums_of_labels(own_words, classes, lane, weighted);

  const int begin = band * p.band * p.y.parts, end = min(begin + p.band * p.y.parts, p.rows);
  Corners maxima;
  scores_around<Score, Offset>(p, Column(p, first + lane), p.y_begin + begin / p.y.parts)
      .maxima_of(0, classes, maxima.bottom_left, maxima.bottom_right);
  LossSums total{0.0f, 0.0f, 0.0f};
  bool wrong = false;
  for (int row = begin; row < end; ++row) {
    // Formed anew for each row: kept over the loops over the classes, it would take the place of sums.
    const auto column_again = [&] { return Column(p, opaque(first + lane)); };
    const Column column = column_again();
    const int y = p.y_begin + row / p.y.parts, y_part = p.y_begin * p.y.parts + row;
    const Fractions at{p.y.start[y_part], p.y.step, p.x.start[column.part], p.x.step};
    const Sides sides{column.has_left, column.has_right, y > 0, y < p.height};
    auto scores = scores_around<Score, Offset>(p, column, y);
    if (row % p.y.parts == 0) {
      maxima.top_left = maxima.bottom_left, maxima.top_right = maxima.bottom_right;
      scores.maxima_of(2, classes, maxima.bottom_left, maxima.bottom_right);
    }
    scores.maxima = maxima;
    const CellLabels labels = [&] {
      if constexpr (PLAIN) return read_label_bytes<K>(pixels, window_of(p, column, y_part), sums_of_labels);
      else return read_labels<K>(pixels, window_of(p, column, y_part), sums_of_labels, factors);
    }();
    wrong |= labels.wrong;

    float sums[K * K] = {};
    const bool any = __any_sync(kAllLanes, labels.kept != 0);
    float jump = 0.0f;
    if (any) {
      Offset offset = 0;
#pragma unroll 1
      for (int c = 0; c < classes; ++c, offset += scores.stride) {
        const Corners corners = scores.corners(offset);
        jump = largest_jump(jump, corners);
        const Bilinear score = bilinear(corners, at);
        if (p.gentle_twist) add_exponentials<K, true>(sums, score);
        else add_exponentials<K, false>(sums, score);
      }
    }
    const bool steep = labels.kept != 0 && !(jump <= p.steep);
    const uint64_t gentle = steep ? 0 : labels.kept;
    const auto cell = [&] { return window_of(p, column_again(), y_part); };
    if (p.losses != nullptr) store_logarithms<K>(p, cell(), gentle, sums, factors);
    finish_pixels<K>(sums, gentle, factors, total.loss);
    const Column same_column = column_again();
    scores = scores_around<Score, Offset>(p, same_column, y), scores.maxima = maxima;
    BorderWeights y_weights(at.y, at.step_y, sides.top, sides.bottom, p.zero);
    BorderWeights x_weights(at.x, at.step_x, sides.left, sides.right, p.zero);
    auto targets = targets_of<Offset>(p, same_column, row, begin, y);
    y_weights.keep(), x_weights.keep();
    const bool any_gentle = __any_sync(kAllLanes, gentle != 0);
    const int has_grad = opaque(p.grad != nullptr ? 1 : 0);
    LabelSums<PLAIN> sums_of_class = sums_of_labels;
    Offset offset = 0;
#pragma unroll 1
    for (int c = 0; c < classes; ++c, offset += scores.stride, sums_of_class.next_class(), targets.next_class()) {
      Moments aimed{0.0f, 0.0f, 0.0f, 0.0f};
      if (smooth || sums_of_class.has(0)) {
        const Moments found = sums_of_class.take(0);
        const ClassFactors of = PLAIN ? ClassFactors{1.0f, 1.0f, 0.0f} : class_factors(pixels, c);
        total.weight = fmaf(of.own, found.plain, total.weight);
        total.number += found.plain;
        aimed = {of.target * found.plain, of.target * found.by_row, of.target * found.by_column,
                 of.target * found.by_both};
        if (smooth) {
          const Moments whole = sums_of_labels.look(classes);
          aimed.plain = fmaf(of.everywhere, whole.plain, aimed.plain);
          aimed.by_row = fmaf(of.everywhere, whole.by_row, aimed.by_row);
          aimed.by_column = fmaf(of.everywhere, whole.by_column, aimed.by_column);
          aimed.by_both = fmaf(of.everywhere, whole.by_both, aimed.by_both);
        }
      }
      Corners share{0.0f, 0.0f, 0.0f, 0.0f};
      if (any_gentle) {
        const Bilinear score = bilinear(scores.corners(offset), at);
        const float loss = aimed.plain * score.z + aimed.by_row * score.gz + aimed.by_column * score.dz +
                           aimed.by_both * score.dg;
        total.loss -= gentle != 0 ? loss : 0.0f;
        if (has_grad) {
          Moments m;
          if (p.gentle_twist) m = moments<K, true>(sums, score);
          else m = moments<K, false>(sums, score);
          m.plain -= aimed.plain, m.by_row -= aimed.plain + aimed.by_row;
          m.by_column -= aimed.plain + aimed.by_column;
          m.by_both -= (aimed.plain + aimed.by_row) + (aimed.by_column + aimed.by_both);
          share = shares(m, y_weights, x_weights);
          if (gentle == 0) share = {0.0f, 0.0f, 0.0f, 0.0f};
        }
      }
      if (has_grad) targets.store(share);
    }
    if (smooth) sums_of_labels.take(classes);
    if (p.losses != nullptr) store_losses<K>(p, scores, cell(), at, gentle);
    if (__any_sync(kAllLanes, steep))
      total.loss += add_steep_cells<K>(p, scores, cell(), at, sides, labels.kept, steep,
                                              targets_of<Offset>(p, column_again(), row, begin, y));
  }
  for (int other = kWarp / 2; other > 0; other /= 2) {
    total.loss += __shfl_xor_sync(kAllLanes, total.loss, other);
    total.weight += __shfl_xor_sync(kAllLanes, total.weight, other);
    total.number += __shfl_xor_sync(kAllLanes, total.number, other);
  }
  const bool any_wrong = __any_sync(kAllLanes, wrong);
  if (lane == 0) {
    const int64_t programs = static_cast<int64_t>(p.strips) * p.bands;
    p.partials[program] = any_wrong ? NAN : total.loss * kLn2;
    p.partials[programs + program] = total.weight;
    p.partials[2 * programs + program] = total.number;
  }
}

}  // namespace
}  // namespace fcnkern::cuda
