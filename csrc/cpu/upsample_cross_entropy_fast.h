// The fast path of upsample_cross_entropy: four exponentials per class and cell instead of one per pixel.
#pragma once

#include "upsample_cross_entropy_lanes.h"
#include "upsample_cross_entropy_moments.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// exp2 of a class's score at pixel (v, r): first * down^v * (ratio * cross^v)^r, with the ratio of row 0.
struct Geometric {
  VecF first, down, cross;
};

// Working memory of the fast path.
struct FastScratch {
  FastScratch(Carver& carver, int64_t classes)
      : scores(carver.take<Geometric>(classes)),
        row_first(carver.take<VecF>(classes)),
        ratios(carver.take<VecF>((kCellPixels + 1) * classes)),
        sums(carver.take<VecF>(kBlockPixels)),
        weights(carver.take<VecF>(kBlockPixels)),
        best(carver.take<VecI>(kBlockPixels)),
        alive(carver.take<int32_t>(classes)) {}

  Geometric* scores;  // [class]
  VecF* row_first;    // [class], the first pixel of the row at hand
  VecF* ratios;       // [v * classes + class], from pixel to pixel of row v
  VecF* sums;         // [v * kCellPixels + r]: sum of exponentials, then weight / sum
  VecF* weights;      // [v * kCellPixels + r]: weight of the pixel, 0 where it does not count
  VecI* best;         // [v * kCellPixels + r]: class of the greatest score
  int32_t* alive;     // classes that may have it in some pixel of the block
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
// multiply-add, one comparison and two selections per pixel and class that may have it.
void find_best(const Block<float>& block, const FastScratch& scratch);

// Turns the sums into losses in nats, 0 where a pixel does not count; the labels are counted. One multiply-add,
// one comparison and two selections per pixel and class that a label of the block names.
template <class L>
void find_losses(const Block<float>& block, const BlockLabels<L>& labels, const LabelMoments<float>& moments,
                 const LossWeights<float>& weights, const FastScratch& scratch);

// The label part of each lane's loss, in log2 units, from weighed moments.
VecF label_loss(const Block<float>& block, const LabelMoments<float>& labels);

// Gives `out` the gradient for the corners of each class, from weight / sum and weighed moments: 2 operations
// per pixel and class. Fetches a step of what is ahead with each class.
template <class Out>
void add_gradient(const Block<float>& block, const LabelMoments<float>& labels, const FastScratch& scratch,
                  Ahead& ahead, const Out& out);

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
