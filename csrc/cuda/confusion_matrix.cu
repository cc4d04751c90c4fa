#include "confusion_matrix.cuh"

namespace fcnkern::cuda {
namespace {

constexpr int kMostCopies = 8;
constexpr unsigned kLabelsBinBytes = 16 << 10, kTileBinBytes = 8 << 10;

// Adds the pairs of a span of pixels a block. A thread reads kPixels successive pixels of both maps at a
// time, 16 bytes of uint8 labels where `whole` says that pieces of both are aligned and without gaps, and
// adds once for each run of equal pairs, across its pieces too. Reads both maps once. Bound by instructions:
// 23 a pixel of uint8 labels where a third of the pairs that a warp meets are new, twice the time of reading.
template <int kPixels>
__global__ void __launch_bounds__(kCountThreads)
    confusion_matrix_labels_fwd_kernel(const CountParams params, const LabelMap prediction, const bool whole,
                                       unsigned long long* prediction_report, const int64_t span,
                                       const int copies) {
  FCNKERN_SHARED(WrongPixels, wrong, );
  FCNKERN_DYNAMIC_SHARED(unsigned, memory);
  const Bins bins(memory, copies, params.classes, own_counts(params));
  bins.clear();
  if (threadIdx.x == 0) wrong = {0, 0};
  __syncthreads();
  const LabelMap& target = params.target;
  const LabelRule rule = target_rule(params), any_class{params.classes, false, 0};
  PairCounter counter(bins, params.classes, ignored_byte(params), wrong);
  const int64_t pixels = params.n * params.h * params.w, begin = blockIdx.x * span;
  const int64_t end = begin + span < pixels ? begin + span : pixels;
#pragma unroll 1
  for (int64_t first = begin + threadIdx.x * kPixels; first < end; first += kCountThreads * kPixels) {
    if (whole && first + kPixels <= pixels) {
      unsigned truth[kPixels / 2], guess[kPixels / 2];
      const RawPiece true_piece =
          load_piece<kPixels>(label_address(target.data, target.type, first), target.type);
      const RawPiece guessed_piece =
          load_piece<kPixels>(label_address(prediction.data, prediction.type, first), prediction.type);
      take_apart(true_piece, target.type, rule, truth);
      take_apart(guessed_piece, prediction.type, any_class, guess);
      counter.take(truth, guess, [first](int i) { return first + i; });
    } else {
      const int64_t last = first + kPixels < pixels ? first + kPixels : pixels;
      // Counts of instructions go by lines; divisions of 64 bits have none but that of what is before them.
      PixelWalk walk(opaque(first), params.h, params.w);
#pragma unroll 1
      for (int64_t pixel = first; pixel < last; ++pixel, walk.advance())
        counter.take_one(
            rule.narrowed(label_at(target.data, target.type, walk.offset(target))),
            any_class.narrowed(label_at(prediction.data, prediction.type, walk.offset(prediction))),
            [pixel] { return pixel; });
    }
  }
  counter.finish();
  __syncthreads();
  bins.finish();
  if (threadIdx.x == 0) {
    tell_wrong(wrong.target, target, params.h, params.w, params.target_report);
    tell_wrong(wrong.prediction, prediction, params.h, params.w, prediction_report);
  }
}

// Labels a tile of outputs and adds its pairs, tile after tile; no label is stored. Reads the scores of a
// tile's points once, those of undecided cells again from the caches, and the target once, `pixels` at a
// time. Bound by instructions: 70 a pixel at x8 and 19 classes where 15 % of the cells are undecided.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 3)
    confusion_matrix_scores_fwd_kernel(const CountParams params, const LabelTiles plan, const TileShape shape,
                                       const int pixels, const int copies) {
  FCNKERN_SHARED(TileTable, table, );
  FCNKERN_SHARED(WrongPixels, wrong, );
  FCNKERN_DYNAMIC_SHARED(unsigned char, memory);
  const Bins bins(reinterpret_cast<unsigned*>(memory + shape.bytes), copies, params.classes,
                  own_counts(params));
  bins.clear();
  if (threadIdx.x == 0) wrong = {0, 0};
  Tile<T> tile(plan, shape, table, memory);
#pragma unroll 1
  for (unsigned i = blockIdx.x; i < shape.tiles; i += gridDim.x) {
    tile.go_to(i);
    const bool has_patterns = tile.find_patterns();
    PairCounter counter(bins, params.classes, ignored_byte(params), wrong);
    if (has_patterns && pixels == 16) count_patterns<16>(params, tile, true, counter);
    else if (has_patterns) count_patterns<4>(params, tile, pixels == 4, counter);
    tile.each_undecided([&](int y, int x, int count, const int (&label)[kMostOutputs]) {
      count_column(params, tile, y, x, count, label, counter);
    });
    counter.finish();
  }
  __syncthreads();
  bins.finish();
  if (threadIdx.x == 0) tell_wrong(wrong.target, params.target, params.h, params.w, params.target_report);
}

// Copies of the matrix in a block's shared memory, at most `bytes` where there are several; 0: none.
int shared_copies(int classes, unsigned bytes) {
  if (classes > kSharedClasses) return 0;
  int copies = kMostCopies;
  while (copies > 1 && classes * classes * copies * sizeof(unsigned) > bytes) copies /= 2;
  return copies;
}

size_t bin_bytes(int classes, int copies) { return sizeof(unsigned) * classes * classes * copies; }

bool has_whole_pieces(const LabelMap& map, const CountParams& params, int pixels) {
  const auto address = reinterpret_cast<uintptr_t>(map.data);
  return map.strides[2] == 1 && map.strides[1] == params.w && map.strides[0] == params.h * params.w &&
         address % piece_alignment(pixels, map.type) == 0;
}

// How many pixels, 16, 4 or 1, can be loaded at once wherever a row of the map is cut at multiples of them.
int row_pieces(const LabelMap& map) {
  const auto strides = static_cast<uintptr_t>(map.strides[0] | map.strides[1]) * label_bytes(map.type);
  const auto address = reinterpret_cast<uintptr_t>(map.data) | strides;
  for (int pixels : {16, 4})
    if (map.strides[2] == 1 && pixels <= piece_pixels(map.type) &&
        address % piece_alignment(pixels, map.type) == 0)
      return pixels;
  return 1;
}

template <int kPixels>
void count_labels(const CountParams& params, const LabelMap& prediction,
                  unsigned long long* prediction_report, const Stream& stream) {
  constexpr int64_t kStep = kCountThreads * kPixels;
  const int64_t pixels = params.n * params.h * params.w, steps = ceil_div(pixels, kStep);
  const int copies = shared_copies(params.classes, kLabelsBinBytes);
  const auto kernel = confusion_matrix_labels_fwd_kernel<kPixels>;
  Grid grid{{}, {kCountThreads}, bin_bytes(params.classes, copies)};
  const int64_t span = ceil_div<int64_t>(steps, resident_blocks(kernel, grid, stream)) * kStep;
  grid.blocks.x = static_cast<unsigned>(ceil_div(pixels, span));
  const bool whole =
      has_whole_pieces(prediction, params, kPixels) && has_whole_pieces(params.target, params, kPixels);
  launch("confusion_matrix_labels_fwd", kernel, grid, stream, params, prediction, whole, prediction_report, span,
         copies);
}

}  // namespace

void confusion_matrix_labels_fwd(const CountParams& params, const LabelMap& prediction,
                                 unsigned long long* prediction_report, const Stream& stream) {
  const bool bytes = piece_pixels(params.target.type) == 16 && piece_pixels(prediction.type) == 16;
  const auto count = bytes ? count_labels<16> : count_labels<4>;
  count(params, prediction, prediction_report, stream);
}

void confusion_matrix_scores_fwd(const CountParams& params, const LabelTiles& prediction,
                                 const Stream& stream) {
  const TileShape shape = tile_shape(prediction);
  const int copies = shared_copies(params.classes, kTileBinBytes);
  const int pixels = row_pieces(params.target);
  with_score_type(prediction.scores.type, [&](auto element) {
    const auto kernel = confusion_matrix_scores_fwd_kernel<decltype(element)>;
    Grid grid{{}, {kTileThreads}, shape.bytes + bin_bytes(params.classes, copies)};
    grid.blocks.x = std::min(shape.tiles, resident_blocks(kernel, grid, stream));
    launch("confusion_matrix_scores_fwd", kernel, grid, stream, params, prediction, shape, pixels, copies);
  });
}

}  // namespace fcnkern::cuda
