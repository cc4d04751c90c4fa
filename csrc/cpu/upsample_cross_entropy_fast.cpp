// Inside a cell a score is bilinear, so along a row its exponential is a geometric sequence, and so are, down
// the rows, the sequence's first term and its ratio. The scores have had their greatest class subtracted at
// each corner; blended, those maxima bound every pixel's scores, and they cancel in the softmax.
//
// Reads four corners per class and cell, writes four gradients; 4 exponentials per class and cell, 1
// logarithm per pixel, and per pixel and class one half of an addition, a multiplication and a multiply-add
// for the sums and two multiply-adds for the gradient, which are the bound.
#include "upsample_cross_entropy_fast.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {
namespace {

constexpr float kLog2E = 1.44269504088896341f;

// Exponentials are kept times 2^kShift, and scores are clamped from below, so that no term is subnormal; a
// term that is lost has less than e^-119 of the softmax.
constexpr int kShift = 58;
constexpr float kLowest = -119 * kLog2E;

// The greatest jump of a score between corners. In a cell cut short by the border the sequence runs on for up
// to 7 pixels more: 2^(58 + 1.44 * 46 * 7/8) is the largest term, and it is finite.
constexpr float kJump = 46 * kLog2E;

FCNKERN_INLINE VecF clamp_low(VecF z) { return vmax(splat(kLowest), z); }  // keeps NaN

template <int kColumns>
void sum_rows(const Block<float>& block, const FastScratch& scratch) {
  const int64_t classes = block.classes;
  const Geometric* scores = scratch.scores;
  VecF* row_first = scratch.row_first;
  VecF* row_right = scratch.row_right;
  for (int64_t c = 0; c < classes; ++c) {
    row_first[c] = scores[c].first;
    row_right[c] = scores[c].right;
  }
  for (int v = 0; v < block.rows; ++v) {
    VecF total[kColumns] = {};
    for (int64_t c = 0; c < classes; ++c) {
      VecF term = row_first[c];
      const VecF ratio = row_right[c], twice = ratio * ratio;
      row_first[c] = term * scores[c].down;
      row_right[c] = ratio * scores[c].cross;
#pragma GCC unroll 4
      for (int r = 0; r < kColumns; r += 2) {
        total[r] += term;
        total[r + 1] += term * ratio;
        if (r + 2 < kColumns) term *= twice;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kColumns; ++r) scratch.sums[v * kCellPixels + r] = total[r];
  }
}

// Moments over the cell of the softmax of one class, times the pixel weights: along a row by Horner's rule
// and its derivative, down the rows by prefix sums.
template <int kColumns>
FCNKERN_INLINE Moments<float> softmax_moments(const Geometric& score, const VecF* inverse, int rows) {
  Moments<float> m{};
  VecF first = score.first, ratio = score.right;
  for (int v = 0; v < rows; ++v, inverse += kCellPixels) {
    VecF p = inverse[kColumns - 1], slope = p;
    p = p * ratio + inverse[kColumns - 2];
#pragma GCC unroll 8
    for (int r = kColumns - 3; r >= 0; --r) {
      slope = slope * ratio + p;
      p = p * ratio + inverse[r];
    }
    m.one += p * first;
    m.up += m.one;
    m.right += slope * (first * ratio);
    m.up_right += m.right;
    first *= score.down;
    ratio *= score.cross;
  }
  return m;
}

template <int kColumns>
void best_of_rows(const Block<float>& block, VecI* best) {
  const Block<float> b = block;
  for (int v = 0; v < b.rows; ++v, best += kCellPixels) {
    const float bottom = b.v0 + static_cast<float>(v) * b.dv;
    VecF greatest[kColumns];
    VecI at[kColumns] = {};
    for (int r = 0; r < kColumns; ++r) greatest[r] = splat(-INFINITY);
    for (int64_t c = 0; c < b.classes; ++c) {
      const int64_t i = c * b.stride;
      const VecF tl = load(b.top_left + i), tr = load(b.top_right + i);
      const VecF left = tl + bottom * (load(b.bottom_left + i) - tl);
      const VecF across = tr + bottom * (load(b.bottom_right + i) - tr) - left;
      const VecF first = left + b.u0 * across, step = b.du * across;
#pragma GCC unroll 8
      for (int r = 0; r < kColumns; ++r) {
        const VecF z = first + static_cast<float>(r) * step;
        const VecI better = z > greatest[r];
        greatest[r] = better ? z : greatest[r];
        at[r] = better ? splat(static_cast<int32_t>(c)) : at[r];
      }
    }
    for (int r = 0; r < kColumns; ++r) best[r] = at[r];
  }
}

FCNKERN_INLINE VecF times_scores(const Block<float>& block, int64_t c, const Corners<float>& q) {
  const int64_t at = c * block.stride;
  return q.top_left * load(block.top_left + at) + q.top_right * load(block.top_right + at) +
         q.bottom_left * load(block.bottom_left + at) + q.bottom_right * load(block.bottom_right + at);
}

template <int kColumns>
void gradient_of_corners(const Block<float>& block, const LabelMoments<float>& labels,
                         const FastScratch& scratch, Ahead& ahead, Corners<float>* corners) {
  const Block<float> b = block;  // its own copy stays in registers
  for (int64_t c = 0; c < b.classes; ++c) {
    ahead.fetch();
    const Moments<float> softmax = softmax_moments<kColumns>(scratch.scores[c], scratch.sums, b.rows);
    corners[c] = spread(b, softmax - labels[c]);
  }
}

// Mantissas in [1, 2) and biased exponents.
FCNKERN_INLINE VecF mantissa(VecF x) { return from_bits((bits(x) & 0x7fffff) | 0x3f800000); }
FCNKERN_INLINE VecI exponent(VecF x) { return bits(x) >> 23; }

// Four reciprocals for one division, 0 where `valid` does not hold; x must be normal and below 2^126. Returns
// the product of the mantissas.
FCNKERN_INLINE VecF invert4(const VecF* x, const VecI* valid, VecF* out) {
  const VecF m0 = mantissa(x[0]), m1 = mantissa(x[1]), m2 = mantissa(x[2]), m3 = mantissa(x[3]);
  const VecF m01 = m0 * m1, m23 = m2 * m3, product = m01 * m23;
  const VecF inverse = 0x1p127f / product;  // the exponents' bias of 127, given back below
  const VecF i01 = inverse * m23, i23 = inverse * m01;
  const VecF result[4] = {i01 * m1, i01 * m0, i23 * m3, i23 * m2};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) out[i] = from_bits((bits(result[i]) - (bits(x[i]) & 0x7f800000)) & valid[i]);
  return product;
}

// The logarithms are summed as exponents and one product of mantissas.
template <class L>
VecF sum_logs_uniform(const Block<float>& block, const BlockLabels<L>& labels, VecF* sums) {
  using Labels = BlockLabels<L>;
  VecI exponents{}, count{};
  VecF product = splat(1.0f);
  for (int v = 0; v < block.rows; ++v)
    for (int group = 0; group < block.columns; group += 4) {
      VecF* x = sums + v * kCellPixels + group;
      VecI valid[4];
      VecF masked[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const VecI set = ~labels.word(v, (group + i) / Labels::kPerWord);
        valid[i] = (set & (Labels::kNone << (Labels::kBits * (i % Labels::kPerWord)))) != 0;
        count -= valid[i];
        masked[i] = valid[i] ? x[i] : splat(1.0f);
        exponents += exponent(masked[i]);
      }
      product *= invert4(masked, valid, x);  // below 2^5
      exponents += exponent(product) - 5 * 127;
      product = mantissa(product);
    }
  return log2(product) + to_float(exponents - kShift * count);
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

}  // namespace

bool prepare_geometric(const Block<float>& block, const FastScratch& scratch) {
  VecI fits = splat(-1);
  const float du = block.du, v0 = block.v0, dv = block.dv;
  for (int64_t c = 0; c < block.classes; ++c) {
    const int64_t at = c * block.stride;
    const VecF tl = clamp_low(load(block.top_left + at)), tr = clamp_low(load(block.top_right + at));
    const VecF bl = clamp_low(load(block.bottom_left + at)), br = clamp_low(load(block.bottom_right + at));
    const VecF range = vmax(vmax(tl, tr), vmax(bl, br)) - vmin(vmin(tl, tr), vmin(bl, br));
    fits &= range + ((tl + br) + (tr + bl)) * 0.0f <= kJump;  // the sum brings in NaN, which vmax may drop
    const VecF left_slope = bl - tl, right_slope = br - tr;
    const VecF left = tl + v0 * left_slope, right = tr + v0 * right_slope;
    const VecF across = right - left, slope_across = dv * (right_slope - left_slope);
    scratch.scores[c] = {exp2_shifted(left + block.u0 * across, kShift), exp2(du * across),
                         exp2(dv * left_slope + block.u0 * slope_across), exp2(du * slope_across)};
  }
  return all(fits);
}

void sum_exponentials(const Block<float>& block, const FastScratch& scratch) {
  switch (block.columns) {
    case 2:
      return sum_rows<2>(block, scratch);
    case 4:
      return sum_rows<4>(block, scratch);
    case 6:
      return sum_rows<6>(block, scratch);
    default:
      return sum_rows<8>(block, scratch);
  }
}

template <class L>
VecF sum_logs(const Block<float>& block, const BlockLabels<L>& labels, bool weighted,
                const FastScratch& scratch) {
  return weighted ? sum_logs_weighted(block, scratch) : sum_logs_uniform(block, labels, scratch.sums);
}
template VecF sum_logs(const Block<float>&, const BlockLabels<uint8_t>&, bool, const FastScratch&);
template VecF sum_logs(const Block<float>&, const BlockLabels<uint16_t>&, bool, const FastScratch&);

void find_best(const Block<float>& block, const FastScratch& scratch) {
  switch (block.columns) {
    case 2:
      return best_of_rows<2>(block, scratch.best);
    case 4:
      return best_of_rows<4>(block, scratch.best);
    case 6:
      return best_of_rows<6>(block, scratch.best);
    default:
      return best_of_rows<8>(block, scratch.best);
  }
}

void log_sums(const Block<float>& block, const FastScratch& scratch) {
  for (int v = 0; v < block.rows; ++v)
    for (int r = 0; r < block.columns; ++r) {
      VecF& x = scratch.sums[v * kCellPixels + r];
      x = log2_shifted(x, -kShift);
    }
}

VecF label_loss(const Block<float>& block, const LabelMoments<float>& labels) {
  VecF loss{};
  for (int64_t i = 0; i < labels.present_count(); ++i) {
    const int64_t c = labels.present()[i];
    loss -= times_scores(block, c, spread(block, labels[c]));
  }
  return loss;
}

void write_gradient(const Block<float>& block, const LabelMoments<float>& labels, const FastScratch& scratch,
                    Ahead& ahead, Corners<float>* corners) {
  switch (block.columns) {
    case 2:
      return gradient_of_corners<2>(block, labels, scratch, ahead, corners);
    case 4:
      return gradient_of_corners<4>(block, labels, scratch, ahead, corners);
    case 6:
      return gradient_of_corners<6>(block, labels, scratch, ahead, corners);
    default:
      return gradient_of_corners<8>(block, labels, scratch, ahead, corners);
  }
}

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
