// The fast path of upsample_cross_entropy: four exponentials per class and cell instead of one per pixel.
#pragma once

#include "upsample_cross_entropy_moments.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// exp2 of a class's score at pixel (v, r): first * down^v * (right * cross^v)^r.
struct Geometric {
  VecF first, right, down, cross;
};

// Working memory of the fast path.
struct FastScratch {
  FastScratch(Carver& carver, int64_t classes)
      : scores(carver.take<Geometric>(classes)),
        row_first(carver.take<VecF>(classes)),
        row_right(carver.take<VecF>(classes)),
        sums(carver.take<VecF>(kBlockPixels)),
        weights(carver.take<VecF>(kBlockPixels)),
        best(carver.take<VecI>(kBlockPixels)) {}

  Geometric* scores;  // [class]
  VecF* row_first;    // [class], the first pixel of the row at hand
  VecF* row_right;    // [class], its ratio
  VecF* sums;         // [v * kCellPixels + r]: sum of exponentials, then weight / sum
  VecF* weights;      // [v * kCellPixels + r]: weight of the pixel, 0 where it does not count
  VecI* best;         // [v * kCellPixels + r]: class of the greatest score
};

// Fills scratch.scores. False where a score jumps too far between corners or is not finite: then the
// per-pixel path must do the block. 4 exponentials per class.
bool prepare_geometric(const Block<float>& block, const FastScratch& scratch);

// Sums the exponentials of each pixel over the classes: 1.5 operations per pixel and class.
void sum_exponentials(const Block<float>& block, const FastScratch& scratch);

// Sum over each lane's counting pixels of logsumexp (in log2 units, times scratch.weights if `weighted`);
// turns the sums into weight / sum for the gradient.
template <class L>
VecF sum_logs(const Block<float>& block, const BlockLabels<L>& labels, bool weighted,
                const FastScratch& scratch);

// Fills scratch.best: the class of the greatest score of each pixel, the lowest one on ties. One
// multiply-add, one comparison and two selections per pixel and class.
void find_best(const Block<float>& block, const FastScratch& scratch);

// Turns the sums into logsumexp in log2 units.
void log_sums(const Block<float>& block, const FastScratch& scratch);

// The label part of each lane's loss, in log2 units, from weighed moments.
VecF label_loss(const Block<float>& block, const LabelMoments<float>& labels);

// The gradient for the corners of all classes, from weight / sum and weighed moments: 2 operations per pixel
// and class. Fetches a step of what is ahead with each class.
void write_gradient(const Block<float>& block, const LabelMoments<float>& labels, const FastScratch& scratch,
                    Ahead& ahead, Corners<float>* corners);

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
