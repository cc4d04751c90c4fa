// Counts of (truth, prediction) over label maps.
#pragma once

#include "label_tiles.h"
#include "labels.h"
#include "stream.h"

namespace fcnkern::cuda {

// Classes up to which a block counts in shared memory; with more, in one of several copies in global memory.
constexpr int kSharedClasses = 64;

// What is counted, and where.
struct CountParams {
  LabelMap target;
  int64_t n, h, w;
  int classes;
  bool has_ignore;
  int64_t ignore_index;
  unsigned long long* counts;  // copies x classes x classes, [truth][prediction]; added to
  int copies;
  unsigned long long* target_report;  // three words (labels.cuh)
};

// `prediction_report` are the three words of the prediction.
void confusion_matrix_labels_fwd(const CountParams& params, const LabelMap& prediction,
                                 unsigned long long* prediction_report, const Stream& stream);

void confusion_matrix_scores_fwd(const CountParams& params, const LabelTiles& prediction,
                                 const Stream& stream);

}  // namespace fcnkern::cuda
