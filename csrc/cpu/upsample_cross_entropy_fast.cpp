// Inside a cell a score is bilinear, so along a row its exponential is a geometric sequence, and so are, down
// the rows, the sequence's first term and its ratio. The scores have had their greatest class subtracted at
// each corner; blended, those maxima bound every pixel's scores, and they cancel in the softmax.
//
// Reads four corners per class and cell, writes four gradients; 4 exponentials per class and cell, 1
// logarithm per cell and 1 division per four pixels, where pixels are weighted or mapped 1 logarithm per pixel,
// and per pixel and class one half of an addition, a multiplication and a multiply-add for the sums and two
// multiply-adds for the gradient, which are the bound.
#include "upsample_cross_entropy_fast.h"

#include <type_traits>

#include "upsample_cross_entropy_pixel.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {
namespace {

constexpr float kLog2E = Unit<float>::kPerNat;

// Exponentials are kept times 2^kShift, and scores are clamped from below, so that no term is subnormal; a
// term that is lost has less than e^-119 of the softmax. A sum over up to 2^16 classes is at most 2^62; it is
// at least 2^-21, as some class has its greatest score at a corner and at most a jump less at the pixel.
constexpr int kShift = 46;
constexpr float kUnit = 0x1p46f;
constexpr float kLowest = -119 * kLog2E;

// The greatest jump of a score between corners. In a cell cut short by the border the sequence runs on for up
// to 7 pixels more: 2^(46 + 1.44 * 46 * 7/8) is the largest term, and it is finite.
constexpr float kJump = 46 * kLog2E;

// The same for a block. Pixels further apart than half a cell run on for more than that: a ratio from row to
// row, a step to the right of the cell's last pixel, has at most jump * steepest * (1 + 2 * steepest).
FCNKERN_INLINE float greatest_jump(const Block<float>& block) {
  const float steepest = block.du > block.dv ? block.du : block.dv;
  return steepest > 0.5f ? kJump * 0.5f / steepest : kJump;
}

// Calls body with the columns of a block, 2, 4, 6 or 8, as a constant.
template <class Body>
FCNKERN_INLINE void with_columns(int columns, Body body) {
  switch (columns) {
    case 2:
      return body(std::integral_constant<int, 2>{});
    case 4:
      return body(std::integral_constant<int, 4>{});
    case 6:
      return body(std::integral_constant<int, 6>{});
    default:
      return body(std::integral_constant<int, 8>{});
  }
}

FCNKERN_INLINE VecF clamp_low(VecF z) { return vmax(splat(kLowest), z); }  // keeps NaN

// Rows [row, row + kRows): the more at a time, the less each class is loaded and stored.
template <int kColumns, int kRows>
void sum_rows(int64_t classes, const FastScratch& scratch, int row) {
  const Geometric* scores = scratch.scores;
  VecF* row_first = scratch.row_first;
  VecF* ratios = scratch.ratios + row * classes;
  VecF total[kRows][kColumns] = {};
  for (int64_t c = 0; c < classes; ++c) {
    VecF first = row_first[c], next_ratio = ratios[c];
#pragma GCC unroll 8
    for (int v = 0; v < kRows; ++v) {
      VecF term = first;
      const VecF ratio = next_ratio, twice = ratio * ratio;
      first = term * scores[c].down;
      ratios[(v + 1) * classes + c] = next_ratio = ratio * scores[c].cross;
#pragma GCC unroll 4
      for (int r = 0; r < kColumns; r += 2) {
        total[v][r] += term;
        total[v][r + 1] += term * ratio;
        if (r + 2 < kColumns) term *= twice;
      }
    }
    row_first[c] = first;
  }
#pragma GCC unroll 8
  for (int v = 0; v < kRows; ++v)
#pragma GCC unroll 8
    for (int r = 0; r < kColumns; ++r) scratch.sums[(row + v) * kCellPixels + r] = total[v][r];
}

// Sums of so many pixels fit in the registers.
constexpr int kSums = kLanes == 16 ? 16 : 8;

template <int kColumns>
void sum_pixels(const Block<float>& block, const FastScratch& scratch) {
  constexpr int kRows = kSums / kColumns;
  for (int64_t c = 0; c < block.classes; ++c) scratch.row_first[c] = scratch.scores[c].first;
  int row = 0;
  for (; row + kRows <= block.rows; row += kRows) sum_rows<kColumns, kRows>(block.classes, scratch, row);
  for (; row < block.rows; ++row) sum_rows<kColumns, 1>(block.classes, scratch, row);
}

// A polynomial and its derivative.
struct Polynomial {
  VecF value{}, slope{};

  // Makes it x * itself + next.
  void push(VecF x, VecF next) {
    slope = slope * x + value;
    value = value * x + next;
  }
};

template <int kColumns>
FCNKERN_INLINE Polynomial row_polynomial(const VecF* coefficients, VecF x) {
  Polynomial p{coefficients[kColumns - 2] + coefficients[kColumns - 1] * x, coefficients[kColumns - 1]};
#pragma GCC unroll 8
  for (int r = kColumns - 3; r >= 0; --r) p.push(x, coefficients[r]);
  return p;
}

// Moments over the cell of the softmax of one class, times the pixel weights, by Horner's rule: of row v a
// polynomial in its ratio, of the cell one in the ratio from row to row. The first moments are the slopes.
template <int kColumns>
FCNKERN_INLINE Moments<float> softmax_moments(const Geometric& score, const VecF* ratios, int64_t classes,
                                              const VecF* inverse, int rows) {
  const VecF down = score.down, down_right = down * score.cross;
  const auto polynomial_of_row = [=](int v) {
    return row_polynomial<kColumns>(inverse + v * kCellPixels, ratios[v * classes]);
  };
  const Polynomial last = polynomial_of_row(rows - 1);
  Polynomial values{last.value, VecF{}}, slopes{last.slope, VecF{}};
  for (int v = rows - 2; v >= 0; --v) {
    const Polynomial row = polynomial_of_row(v);
    values.push(down, row.value);
    slopes.push(down_right, row.slope);
  }
  const VecF first = score.first, right = first * ratios[0];
  return {first * values.value, first * down * values.slope, right * slopes.value,
          right * down_right * slopes.slope};
}

FCNKERN_INLINE CornerPoints points_of(const Block<float>& block) {
  return {block.top_left, block.top_right, block.bottom_left, block.bottom_right, block.stride};
}

FCNKERN_INLINE Corners<float> corners_of(const Block<float>& block, int64_t c) {
  return load_corners(points_of(block), c);
}

FCNKERN_INLINE RowPosition position_of(const Block<float>& block, int v) {
  return {block.v0 + static_cast<float>(v) * block.dv, block.u0, block.du};
}

template <int kColumns>
void best_of_rows(const Block<float>& block, const FastScratch& scratch) {
  const CornerPoints points = points_of(block);
  const int count = surviving_classes(points, static_cast<int>(block.classes), scratch.alive);
  VecF scores[kColumns];
  for (int v = 0; v < block.rows; ++v)
    winners<kColumns>(points, scratch.alive, count, position_of(block, v), scratch.best + v * kCellPixels, scores);
}

// Of each corner the sum of all scores, each times its share of label smoothing.
Corners<float> smoothed_corners(const Block<float>& block, const LossWeights<float>& weights) {
  Corners<float> sums{};
  for (int64_t c = 0; weights.soft != nullptr && c < block.classes; ++c) {
    const Corners<float> z = corners_of(block, c);
    const float share = weights.soft[c];
    sums.top_left += share * z.top_left;
    sums.top_right += share * z.top_right;
    sums.bottom_left += share * z.bottom_left;
    sums.bottom_right += share * z.bottom_right;
  }
  return sums;
}

template <int kColumns, class L>
void losses_of_rows(const Block<float>& block, const BlockLabels<L>& labels, const LabelMoments<float>& moments,
                    const LossWeights<float>& weights, const FastScratch& scratch) {
  const Corners<float> smoothed = smoothed_corners(block, weights);
  for (int v = 0; v < block.rows; ++v) {
    const RowPosition position = position_of(block, v);
    VecF own[kColumns] = {}, lse[kColumns] = {};
    VecI label[kColumns];
    for (int r = 0; r < kColumns; ++r) label[r] = labels.label_at(v, r);
    for (int64_t i = 0; i < moments.present_count(); ++i) {
      const int32_t c = moments.present()[i];
      const Line line = line_of(corners_of(block, c), position);
      const VecF first = weights.hard[c] * line.start, step = weights.hard[c] * line.step, factor = splat(weights.lse[c]);
#pragma GCC unroll 8
      for (int r = 0; r < kColumns; ++r) {
        const VecI is_own = label[r] == c;
        own[r] = is_own ? first + static_cast<float>(r) * step : own[r];
        lse[r] = is_own ? factor : lse[r];
      }
    }
    const Line soft = line_of(smoothed, position);
    for (int r = 0; r < kColumns; ++r) {
      VecF& x = scratch.sums[v * kCellPixels + r];
      const VecF loss =
          lse[r] * log2_shifted(x, -kShift) - own[r] - (soft.start + static_cast<float>(r) * soft.step);
      x = label[r] != BlockLabels<L>::kNone ? loss * Unit<float>::kNats : VecF{};
    }
  }
}

FCNKERN_INLINE VecF times_scores(const Block<float>& block, int64_t c, const Corners<float>& q) {
  const Corners<float> z = corners_of(block, c);
  return q.top_left * z.top_left + q.top_right * z.top_right + q.bottom_left * z.bottom_left +
         q.bottom_right * z.bottom_right;
}

template <int kColumns, class Out>
FCNKERN_INLINE void gradient_of_corners(const Block<float>& block, const LabelMoments<float>& labels,
                                        const FastScratch& scratch, Ahead& ahead, const Out& out) {
  const Block<float> b = block;  // its own copy stays in registers
  for (int64_t c = 0; c < b.classes; ++c) {
    ahead.fetch(c);
    const Moments<float> softmax =
        softmax_moments<kColumns>(scratch.scores[c], scratch.ratios + c, b.classes, scratch.sums, b.rows);
    out.add(c, spread(b, softmax - labels[c]));
  }
}

// Mantissas in [1, 2) and biased exponents.
FCNKERN_INLINE VecF mantissa(VecF x) { return from_bits((bits(x) & 0x7fffff) | 0x3f800000); }
FCNKERN_INLINE VecI exponent(VecF x) { return bits(x) >> 23; }

// Turns four sums into their reciprocals, 0 where `valid` does not hold; one division for all. A product of
// two sums, 2^-41 to 2^124, is a mantissa and an exponent. Adds the exponents; returns the product of the
// mantissas.
FCNKERN_INLINE VecF invert4(VecF* x, const VecI* valid, VecI& exponents) {
  VecF sums[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sums[i] = valid[i] ? x[i] : splat(kUnit);
  const VecF left = sums[0] * sums[1], right = sums[2] * sums[3];
  const VecF left_part = mantissa(left), right_part = mantissa(right), product = left_part * right_part;
  const VecF inverse = 0x1p127f / product;  // the exponents' bias of 127, given back in `lower`
  const auto lower = [](VecF part, VecF by) { return from_bits(bits(part) - (bits(by) & 0x7f800000)); };
  const VecF left_inverse = lower(inverse * right_part, left);
  const VecF right_inverse = lower(inverse * left_part, right);
  exponents += exponent(left) + exponent(right);
  x[0] = valid[0] ? sums[1] * left_inverse : VecF{};
  x[1] = valid[1] ? sums[0] * left_inverse : VecF{};
  x[2] = valid[2] ? sums[3] * right_inverse : VecF{};
  x[3] = valid[3] ? sums[2] * right_inverse : VecF{};
  return product;
}

// The logarithms are summed as exponents and one product of mantissas. A pixel that does not count takes part
// as kUnit, which stands for 1.
template <class L>
VecF sum_logs_uniform(const Block<float>& block, const BlockLabels<L>& labels, VecF* sums) {
  using Labels = BlockLabels<L>;
  constexpr int kBias = 127;
  const int groups = (block.columns + 3) / 4;
  VecI exponents = splat(-block.rows * (groups * (4 * kShift + 2 * kBias) + kBias));
  VecF product = splat(1.0f);
  for (int v = 0; v < block.rows; ++v) {
    for (int group = 0; group < groups; ++group) {
      VecI valid[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const VecI set = ~labels.word(v, (4 * group + i) / Labels::kPerWord);
        valid[i] = (set & (Labels::kNone << (Labels::kBits * (i % Labels::kPerWord)))) != 0;
      }
      product *= invert4(sums + v * kCellPixels + 4 * group, valid, exponents);  // below 2^5
    }
    exponents += exponent(product);
    product = mantissa(product);
  }
  return log2(product) + to_float(exponents);
}

VecF sum_logs_weighted(const Block<float>& block, const FastScratch& scratch) {
  VecF loss{};
  for (int v = 0; v < block.rows; ++v)
    for (int r = 0; r < block.columns; ++r) {
      VecF& x = scratch.sums[v * kCellPixels + r];
      const VecF weight = scratch.weights[v * kCellPixels + r];
      const VecI valid = weight != 0.0f;
      const VecF masked = valid ? x : splat(1.0f);
      loss += valid ? weight * log2_shifted(masked, -kShift) : VecF{};
      x = weight / masked;
    }
  return loss;
}

template <bool kNarrow>
bool fill_geometric(const Block<float>& block, const FastScratch& scratch) {
  VecI fits = splat(-1);
  const float du = block.du, v0 = block.v0, dv = block.dv, jump = greatest_jump(block);
  for (int64_t c = 0; c < block.classes; ++c) {
    const int64_t at = c * block.stride;
    VecF tl = load(block.top_left + at), tr = load(block.top_right + at);
    VecF bl = load(block.bottom_left + at), br = load(block.bottom_right + at);
    if (!kNarrow) {
      tl = clamp_low(tl), tr = clamp_low(tr), bl = clamp_low(bl), br = clamp_low(br);
      const VecF range = vmax(vmax(tl, tr), vmax(bl, br)) - vmin(vmin(tl, tr), vmin(bl, br));
      fits &= range + ((tl + br) + (tr + bl)) * 0.0f <= jump;  // the sum brings in NaN, which vmax may drop
    }
    const VecF left_slope = bl - tl, right_slope = br - tr;
    const VecF left = tl + v0 * left_slope, right = tr + v0 * right_slope;
    const VecF across = right - left, slope_across = dv * (right_slope - left_slope);
    scratch.scores[c] = {exp2_shifted(left + block.u0 * across, kShift),
                         exp2(dv * left_slope + block.u0 * slope_across), exp2(du * slope_across)};
    scratch.ratios[c] = exp2(du * across);
  }
  return all(fits);
}

// Whether no score lies further than a jump below the greatest: then none jumps further, and none is clamped.
bool is_narrow(const Block<float>& block) {
  const int64_t at = block.classes * block.stride;
  const float least = -greatest_jump(block);
  return all((load(block.top_left + at) >= least) & (load(block.top_right + at) >= least) &
             (load(block.bottom_left + at) >= least) & (load(block.bottom_right + at) >= least));
}

}  // namespace

bool prepare_geometric(const Block<float>& block, const FastScratch& scratch) {
  return is_narrow(block) ? fill_geometric<true>(block, scratch) : fill_geometric<false>(block, scratch);
}

void sum_exponentials(const Block<float>& block, const FastScratch& scratch) {
  with_columns(block.columns, [&](auto columns) { sum_pixels<columns>(block, scratch); });
}

template <class L>
VecF sum_logs(const Block<float>& block, const BlockLabels<L>& labels, bool weighted,
                const FastScratch& scratch) {
  return weighted ? sum_logs_weighted(block, scratch) : sum_logs_uniform(block, labels, scratch.sums);
}
template VecF sum_logs(const Block<float>&, const BlockLabels<uint8_t>&, bool, const FastScratch&);
template VecF sum_logs(const Block<float>&, const BlockLabels<uint16_t>&, bool, const FastScratch&);

void find_best(const Block<float>& block, const FastScratch& scratch) {
  with_columns(block.columns, [&](auto columns) { best_of_rows<columns>(block, scratch); });
}

template <class L>
void find_losses(const Block<float>& block, const BlockLabels<L>& labels, const LabelMoments<float>& moments,
                 const LossWeights<float>& weights, const FastScratch& scratch) {
  with_columns(block.columns,
               [&](auto columns) { losses_of_rows<columns>(block, labels, moments, weights, scratch); });
}
template void find_losses(const Block<float>&, const BlockLabels<uint8_t>&, const LabelMoments<float>&,
                          const LossWeights<float>&, const FastScratch&);
template void find_losses(const Block<float>&, const BlockLabels<uint16_t>&, const LabelMoments<float>&,
                          const LossWeights<float>&, const FastScratch&);

VecF label_loss(const Block<float>& block, const LabelMoments<float>& labels) {
  VecF loss{};
  for (int64_t i = 0; i < labels.present_count(); ++i) {
    const int64_t c = labels.present()[i];
    loss -= times_scores(block, c, spread(block, labels[c]));
  }
  return loss;
}

template <class Out>
void add_gradient(const Block<float>& block, const LabelMoments<float>& labels, const FastScratch& scratch,
                  Ahead& ahead, const Out& out) {
  with_columns(block.columns, [&](auto columns) {
    gradient_of_corners<columns>(block, labels, scratch, ahead, out);
  });
}
template void add_gradient(const Block<float>&, const LabelMoments<float>&, const FastScratch&, Ahead&,
                           const LanePoints<float>&);
template void add_gradient(const Block<float>&, const LabelMoments<float>&, const FastScratch&, Ahead&,
                           const PointRows<float>&);

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
