#include "upsample_cross_entropy.h"

#include <algorithm>
#include <limits>

#include "upsample_cross_entropy_full.cuh"
#include "upsample_cross_entropy_kernel.cuh"

namespace fcnkern::cuda {
namespace {

// Whether pixels count alike where they are not ignored, and labels and offsets are small.
bool is_plain(const LossCells& p) {
  const LossPixels& pixels = p.pixels;
  const bool alike = pixels.class_weight == nullptr && pixels.pixel_weight == nullptr && pixels.smoothing == 0.0f &&
                     pixels.limits == nullptr && pixels.hard_losses == nullptr;
  const int64_t reach = pixels.classes * std::max(p.scores.stride[1], p.grad_stride[1]);
  return alike && pixels.classes <= kByteClasses && p.counts == nullptr && reach <= std::numeric_limits<int>::max();
}

template <class Score, int K>
void launch_cells(const LossCells& p, const Stream& stream) {
  const bool weighted = p.pixels.pixel_weight != nullptr;
  const size_t factors = weighted || p.pixels.class_weight != nullptr ? K * K * kWarp * sizeof(float) : 0;
  const size_t words = static_cast<size_t>(p.pixels.classes + 2) * kWarp * sizeof(uint32_t) * (weighted ? 4 : 1);
  const Grid grid{dim3(p.strips, p.bands), dim3(kWarp), factors + (p.counts == nullptr ? words : 0)};
  const auto kernel = is_plain(p) ? upsample_cross_entropy_cells_kernel<Score, K, true>
                                  : upsample_cross_entropy_cells_kernel<Score, K, false>;
  launch("upsample_cross_entropy_cells_kernel", kernel, grid, stream, p);
}

// A block for every tile of the labels.
Grid label_grid(const LossPixels& pixels, int images) {
  return {dim3(label_blocks(pixels) * images), dim3(kLossPixelsPerBlock)};
}

}  // namespace

void upsample_cross_entropy_cells(const LossCells& params, const Stream& stream) {
  with_element_type(params.scores.dtype, [&](auto score) {
    using Score = decltype(score);
    switch (params.slots) {
      case 2: return launch_cells<Score, 2>(params, stream);
      case 4: return launch_cells<Score, 4>(params, stream);
      default: return launch_cells<Score, 8>(params, stream);
    }
  });
}

void upsample_cross_entropy_full(const LossFull& params, const Stream& stream) {
  const Grid grid{dim3(params.images, params.blocks), dim3(kLossPixelsPerBlock)};  // y takes 65535 at most
  with_element_type(params.scores.dtype, [&](auto score) {
    launch("upsample_cross_entropy_full_kernel", upsample_cross_entropy_full_kernel<decltype(score)>, grid, stream,
           params);
  });
}

void upsample_cross_entropy_total(const LossTotal& params, const Stream& stream) {
  launch("upsample_cross_entropy_total_kernel", upsample_cross_entropy_total_kernel, Grid{dim3(1), dim3(kTotalThreads)},
         stream, params);
}

void upsample_cross_entropy_finish(const LossFinish& params, const Stream& stream) {
  const int64_t elements = static_cast<int64_t>(params.images) * params.classes * params.height * params.width;
  const Grid grid{dim3(static_cast<unsigned>(ceil_div<int64_t>(elements, kFinishThreads))), dim3(kFinishThreads)};
  launch("upsample_cross_entropy_finish_kernel", upsample_cross_entropy_finish_kernel, grid, stream, params);
}

void upsample_cross_entropy_weight(const LossPixels& pixels, int images, float* partials, const Stream& stream) {
  launch("upsample_cross_entropy_weight_kernel", upsample_cross_entropy_weight_kernel, label_grid(pixels, images), stream,
         pixels, partials);
}

void upsample_cross_entropy_correct(const LossPixels& pixels, const LabelMap& predicted, int images, int* partials,
                                    const Stream& stream) {
  launch("upsample_cross_entropy_correct_kernel", upsample_cross_entropy_correct_kernel, label_grid(pixels, images),
         stream, pixels, predicted, partials);
}

}  // namespace fcnkern::cuda
