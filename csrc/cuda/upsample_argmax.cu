#include "upsample_argmax.cuh"
#include "upsample_argmax_confidence.cuh"

namespace fcnkern::cuda {
namespace {

constexpr int kConfidenceThreads = 128;

// The labels of a tile a block. Reads the scores of a tile's points once, and those of its undecided cells
// again from the caches; writes each label once, those of undecided cells twice. Bound by instructions: 29 a
// pixel at x8 and 19 classes where 15 % of the cells are undecided, twice the time of DRAM.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 4)
    upsample_argmax_fwd_kernel(const LabelTiles plan, const TileShape shape, const LabelStores stores) {
  FCNKERN_SHARED(TileTable, table, );
  FCNKERN_DYNAMIC_SHARED(unsigned char, memory);
  Tile<T> tile(plan, shape, table, memory);
  tile.go_to(blockIdx.x);
  store_tile(tile, stores);
}

// The probabilities of labels; a thread to a column of outputs. Reads the labels once and the scores, from
// the caches, for every column; writes each probability once. One exponential an output and class; bound
// by instructions: 14 of them at 19 classes, 8 in the loop. Where one is NaN, near infinite or huge scores, the
// column's are formed again in the definition's own arithmetic.
template <class T>
__global__ void __launch_bounds__(kConfidenceThreads, 3)
    upsample_argmax_confidence_fwd_kernel(const LabelTiles plan, const unsigned part_rows,
                                          const LabelOutputs outputs) {
  const unsigned strips = ceil_div<unsigned>(plan.width, kConfidenceThreads);
  const int x = static_cast<int>(blockIdx.x % strips) * kConfidenceThreads + threadIdx.x;
  const auto line = blockIdx.x / strips, part = line % part_rows;
  const int64_t image = line / part_rows;
  const int count = plan.y.counts[part];
  if (count == 0 || x >= plan.width) return;
  const CellPlace cell{static_cast<int>(part) / plan.y.parts,
                       cell_of_point(plan.point_x[x], static_cast<int>(plan.scores.w))};
  const Column<T> column = column_at<T>(plan, image, cell, plan.y.start[part], plan.fraction_x[x]);
  const int64_t place = (image * plan.height + plan.y.first[part]) * plan.width + x;
  const int classes = static_cast<int>(plan.scores.c);
  int label[kMostOutputs];
  float probability[kMostOutputs];
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r) {
    const int64_t at = place + static_cast<int64_t>(min(r, count - 1)) * plan.width;
    label[r] = static_cast<int>(label_at(outputs.labels, outputs.type, at));
  }
  probabilities<false>(column, label, classes, plan.y.slots, plan.skip_zero_weights, probability);
  bool broken = false;
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r) broken |= r < count && probability[r] != probability[r];
  if (broken) probabilities<true>(column, label, classes, plan.y.slots, plan.skip_zero_weights, probability);
#pragma unroll
  for (int r = 0; r < kMostOutputs; ++r)
    if (r < count) outputs.confidence[place + static_cast<int64_t>(r) * plan.width] = probability[r];
}

// The widest pieces to which every row of the map, and so every tile, is aligned.
int piece_bytes(const LabelTiles& plan, const LabelOutputs& outputs) {
  const int bytes = label_bytes(outputs.type);
  const auto row = reinterpret_cast<uintptr_t>(outputs.labels) | static_cast<uintptr_t>(plan.width) * bytes;
  return row % 16 == 0 ? 16 : row % 4 == 0 ? std::max(4, bytes) : bytes;
}

}  // namespace

void upsample_argmax_fwd(const LabelTiles& plan, const LabelOutputs& outputs, const Stream& stream) {
  const TileShape shape = tile_shape(plan);
  with_score_type(plan.scores.type, [&](auto element) {
    using T = decltype(element);
    const Grid grid{{shape.tiles}, {kTileThreads}, shape.bytes};
    const LabelStores stores{outputs.labels, outputs.type, piece_bytes(plan, outputs)};
    launch("upsample_argmax_fwd", upsample_argmax_fwd_kernel<T>, grid, stream, plan, shape, stores);
    if (outputs.confidence == nullptr) return;
    const unsigned strips = ceil_div<unsigned>(plan.width, kConfidenceThreads);
    const Grid lines{{static_cast<unsigned>(plan.scores.n) * shape.part_rows * strips}, {kConfidenceThreads}};
    launch("upsample_argmax_confidence_fwd", upsample_argmax_confidence_fwd_kernel<T>, lines, stream, plan,
           shape.part_rows, outputs);
  });
}

}  // namespace fcnkern::cuda
