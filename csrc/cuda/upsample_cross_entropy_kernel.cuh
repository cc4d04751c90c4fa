// The kernel of the fused loss over cells.
#pragma once

#include "upsample_cross_entropy_cells.cuh"

namespace fcnkern::cuda {
namespace {

// Twelve warps fit with the 168 registers a thread that the compiler takes for this; with K = 8 it spills up to 40 bytes of
// pointers that do not change from row to row, outside the loops over the classes.
constexpr int kWarpsPerProcessor = 11;

// Where the gradient of a row of cells goes. `own`: the row 0 of the points at the right of the lane's cells.
__device__ __forceinline__ ShareTargets targets_of(const LossCells& p, float* own, int row, int begin, int y, bool owner) {
  const int64_t strip = blockIdx.x, program = blockIdx.y * static_cast<int64_t>(p.strips) + strip;
  const bool seam = row < begin + p.y.parts && blockIdx.y > 0;
  ShareTargets t;
  t.top = seam ? p.seam + program * p.pixels.classes * kWarp + threadIdx.x : own + max(y - 1, 0) * p.grad_stride[2];
  t.bottom = own + min(y, p.height - 1) * p.grad_stride[2];
  t.rim = p.rim + (strip * p.rows + row) * 2 * p.pixels.classes;
  t.top_step = seam ? kWarp : p.grad_stride[1], t.step = p.grad_stride[1];
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
// Reads the labels once and the scores three times (the last two from the caches); writes the gradient of its points
// (twice; once to the caches), its seam, its rim and three partial sums. Per class and cell 6 exponentials (8 where the
// twist is not gentle); per pixel half a logarithm and one reciprocal, or one of each where pixels are weighted.
// Instruction issue bounds it: by hand 3.5 operations a pixel and class; its machine code has not been counted.
template <class Score, int K>
__global__ void __launch_bounds__(kWarp, kWarpsPerProcessor) upsample_cross_entropy_cells_kernel(const LossCells p) {
  FCNKERN_DYNAMIC_SHARED(uint32_t, shared);
  const LossPixels& pixels = p.pixels;
  const int classes = pixels.classes, lane = threadIdx.x, strip = blockIdx.x, band = blockIdx.y;
  const int64_t program = static_cast<int64_t>(band) * p.strips + strip;
  const bool weighted = pixels.pixel_weight != nullptr, has_factors = weighted || pixels.class_weight != nullptr;
  const int words = (classes + 2) * kWarp * (weighted ? 4 : 1);
  float* factors = has_factors ? reinterpret_cast<float*>(shared) + lane : nullptr;
  uint32_t* own_words = p.counts == nullptr ? shared + (has_factors ? K * K * kWarp : 0) : p.counts + program * words;
  if (p.counts == nullptr)
    for (int i = lane; i < words; i += kWarp) own_words[i] = 0;
  const LabelSums sums_of_labels(own_words, classes, lane, weighted);

  const int flat = strip * kWarp + lane, f = min(flat, p.lanes - 1);
  const bool live = flat < p.lanes;
  const int n = f / p.columns, x_part = p.x_begin * p.x.parts + f - n * p.columns, x = x_part / p.x.parts;
  Window cell{n, 0, p.x.first[x_part], 0, live ? p.x.counts[x_part] : 0};
  Fractions at{0.0f, p.y.step, p.x.start[x_part], p.x.step};
  Sides sides{x > 0, x < p.width, false, false};
  const BorderWeights x_weights(at.x, at.step_x, sides.left, sides.right, p.zero);

  const int64_t* stride = p.scores.stride;
  const Score* image = static_cast<const Score*>(p.scores.data) + n * stride[0];
  const Score* left = image + max(x - 1, 0) * stride[3];
  const Score* right = image + min(x, p.width - 1) * stride[3];
  float* own = p.grad + n * p.grad_stride[0] + min(x, p.width - 1) * p.grad_stride[3];
  const bool owner = live && sides.right && x_part % p.x.parts == 0;

  const int begin = band * p.band * p.y.parts, end = min(begin + p.band * p.y.parts, p.rows);
  CellScores<Score> scores;
  scores.zero = p.zero, scores.stride = stride[1];
  float m_left, m_right;
  {
    const int above = p.y_begin + begin / p.y.parts - 1;
    const int64_t row = max(above, 0) * stride[2];
    point_maxima(left + row, right + row, classes, stride[1], m_left, m_right);
    if (p.zero && (above < 0 || !sides.left)) m_left = 0.0f;
    if (p.zero && (above < 0 || !sides.right)) m_right = 0.0f;
  }
  LossSums total{0.0f, 0.0f, 0.0f};
  bool wrong = false;
  for (int row = begin; row < end; ++row) {
    const int y = p.y_begin + row / p.y.parts, y_part = p.y_begin * p.y.parts + row;
    cell.y = p.y.first[y_part], cell.height = p.y.counts[y_part], at.y = p.y.start[y_part];
    sides.top = y > 0, sides.bottom = y < p.height;
    const int64_t top = max(y - 1, 0) * stride[2], bottom = min(y, p.height - 1) * stride[2];
    scores.at[0] = left + top, scores.at[1] = right + top, scores.at[2] = left + bottom, scores.at[3] = right + bottom;
    scores.exists[0] = sides.left && sides.top, scores.exists[1] = sides.right && sides.top;
    scores.exists[2] = sides.left && sides.bottom, scores.exists[3] = sides.right && sides.bottom;
    if (row % p.y.parts == 0) {
      scores.maxima.top_left = m_left, scores.maxima.top_right = m_right;
      point_maxima(scores.at[2], scores.at[3], classes, stride[1], m_left, m_right);
      if (p.zero && !scores.exists[2]) m_left = 0.0f;
      if (p.zero && !scores.exists[3]) m_right = 0.0f;
      scores.maxima.bottom_left = m_left, scores.maxima.bottom_right = m_right;
    }
    const CellLabels labels = read_labels<K>(pixels, cell, sums_of_labels, factors);
    wrong |= labels.wrong;

    float sums[K * K] = {};
    const bool any = __any_sync(kAllLanes, labels.kept != 0);
    bool all_gentle = true;
    if (any) {
      int64_t offset = 0;
#pragma unroll 1
      for (int c = 0; c < classes; ++c, offset += stride[1]) {
        const Corners corners = scores.corners(offset);
        all_gentle = all_gentle && is_gentle(corners, p.steep);
        add_exponentials<K>(sums, bilinear(corners, at), p.gentle_twist);
      }
    }
    const bool steep = labels.kept != 0 && !all_gentle;
    const uint64_t gentle = steep ? 0 : labels.kept;
    if (p.losses != nullptr) store_logarithms<K>(p, cell, gentle, sums, factors);
    finish_pixels<K>(sums, gentle, factors, total.loss);
    const BorderWeights y_weights(at.y, at.step_y, sides.top, sides.bottom, p.zero);
    ShareTargets targets = targets_of(p, own, row, begin, y, owner);
    int64_t offset = 0;
#pragma unroll 1
    for (int c = 0; c < classes; ++c, offset += stride[1], targets.next_class()) {
      const Moments found = sums_of_labels.take(c);
      const ClassFactors of = class_factors(pixels, c);
      total.weight = fmaf(of.own, found.plain, total.weight);
      total.number += found.plain;
      Corners share{0.0f, 0.0f, 0.0f, 0.0f};
      if (gentle != 0) {
        const Bilinear score = bilinear(scores.corners(offset), at);
        Moments aimed{of.target * found.plain, of.target * found.by_row, of.target * found.by_column,
                      of.target * found.by_both};
        if (pixels.smoothing > 0.0f) {
          const Moments whole = sums_of_labels.look(classes);
          aimed.plain = fmaf(of.everywhere, whole.plain, aimed.plain);
          aimed.by_row = fmaf(of.everywhere, whole.by_row, aimed.by_row);
          aimed.by_column = fmaf(of.everywhere, whole.by_column, aimed.by_column);
          aimed.by_both = fmaf(of.everywhere, whole.by_both, aimed.by_both);
        }
        total.loss -= aimed.plain * score.z + aimed.by_row * score.gz + aimed.by_column * score.dz + aimed.by_both * score.dg;
        if (p.grad != nullptr) {
          Moments m = moments<K>(sums, score, p.gentle_twist);
          m.plain -= aimed.plain, m.by_row -= aimed.plain + aimed.by_row;
          m.by_column -= aimed.plain + aimed.by_column;
          m.by_both -= (aimed.plain + aimed.by_row) + (aimed.by_column + aimed.by_both);
          share = shares(m, y_weights, x_weights);
        }
      }
      if (p.grad != nullptr) targets.store(share);
    }
    if (pixels.smoothing > 0.0f) sums_of_labels.take(classes);
    if (p.losses != nullptr) store_losses<Score, K>(p, scores, cell, at, gentle);
    if (__any_sync(kAllLanes, steep))
      total.loss += add_steep_cells<Score, K>(p, scores, cell, at, sides, labels.kept, steep,
                                              targets_of(p, own, row, begin, y, owner));
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
