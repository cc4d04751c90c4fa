// The fused loss of scores at full size, and the kernels that come after the loss's main kernel.
#pragma once

#include "block_sum.cuh"
#include "elements.cuh"
#include "upsample_cross_entropy_geometric.cuh"
#include "upsample_cross_entropy_pixels.cuh"

namespace fcnkern::cuda {
namespace {

// The class of a pixel that counts, kIgnored where it does not; reports a label out of range, and sets `wrong`.
__device__ __forceinline__ int counted_class(const LossPixels& p, int n, int y, int x, bool& wrong) {
  const int64_t* stride = p.target.strides;
  const int64_t label = label_at(p.target, n * stride[0] + y * stride[1] + x * stride[2]);
  const int kind = class_of(label, p);
  const int64_t place = place_of(p, n, y, x);
  if (kind == p.classes) {
    wrong = true;
    if (p.report != nullptr) LabelReport{p.report}.tell(place, label);
  }
  const bool kept = is_class(kind, p) && SamplingWalk(p, n, y, x).keeps(kind) && is_hard_enough(p, kind, place);
  return kept ? kind : kIgnored;
}

// What a block takes: images lie one after another along the axis of the grid that holds more than 65535 blocks.
struct BlockPlace {
  int image;
  unsigned block;  // of the image

  __device__ __forceinline__ explicit BlockPlace(unsigned blocks)
      : image(static_cast<int>(blockIdx.x / blocks)), block(blockIdx.x - image * blocks) {}
  // The first pixel of the thread, of those of the image.
  __device__ __forceinline__ int64_t pixel() const {
    return static_cast<int64_t>(block) * kLossPixelsPerBlock + threadIdx.x;
  }
};

// Blocks of an image in a kernel that has one for every tile of the labels.
__host__ __device__ __forceinline__ unsigned label_blocks(const LossPixels& p) {
  return static_cast<unsigned>(ceil_div<int64_t>(static_cast<int64_t>(p.height) * p.width, kLossPixelsPerBlock));
}

// What the pixels of a thread sum up to.
struct PixelSums {
  float loss = 0.0f, weight = 0.0f, pixels = 0.0f;  // the loss in binary orders
  bool wrong = false;
};

// 1 / divisor, or where that is 0, 1 / the sum of the weights; 0 where nothing is kept.
__device__ __forceinline__ float scale_of(float divisor, float weight) {
  return divisor != 0.0f ? 1.0f / divisor : weight > 0.0f ? 1.0f / weight : 0.0f;
}

// Adds a pixel's loss and writes its gradient; `index` counts the pixels of the image from the first row on.
template <class Score>
__device__ __forceinline__ void add_pixel(const LossFull& p, int64_t index, float scale, PixelSums& sums) {
  const LossPixels& pixels = p.pixels;
  const int image = blockIdx.x, row = static_cast<int>(index / pixels.width);
  const int x = static_cast<int>(index - static_cast<int64_t>(row) * pixels.width);
  const int n = p.first_image + image, y = p.first_row + row;
  const int kind = counted_class(pixels, n, y, x, sums.wrong);
  const bool counts = kind != kIgnored;
  const int64_t place = place_of(pixels, n, y, x);
  const int64_t* stride = p.scores.stride;
  const Score* score = static_cast<const Score*>(p.scores.data) + image * stride[0] + row * stride[2] + x * stride[3];
  float most = -INFINITY, sum = 0.0f, factor = 0.0f, weight = 0.0f, loss = 0.0f;
  if (counts) {
    weight = weight_of(pixels, place), factor = target_factor(pixels, kind) * weight;
    for (int c = 0; c < pixels.classes; ++c) most = fmaxf(most, to_float(score[c * stride[1]]));
    for (int c = 0; c < pixels.classes; ++c) sum += exp2_fast((to_float(score[c * stride[1]]) - most) * kLog2E);
    loss = factor * log2_fast(sum);
    sums.weight += class_factors(pixels, kind).own * weight, sums.pixels += 1.0f;
  }
  const float share = counts ? factor / sum : 0.0f;
  float* grad = p.grad == nullptr ? nullptr
                                  : p.grad + image * p.grad_stride[0] + row * p.grad_stride[2] + x * p.grad_stride[3];
  for (int c = 0; c < pixels.classes; ++c) {
    float value = 0.0f;
    if (counts) {
      const float less = (to_float(score[c * stride[1]]) - most) * kLog2E;
      const ClassFactors of = class_factors(pixels, c);
      const float aimed = ((kind == c ? of.target : 0.0f) + of.everywhere) * weight;
      if (aimed != 0.0f) loss -= aimed * less;
      value = (share * exp2_fast(less) - aimed) * scale;
    }
    if (grad != nullptr) grad[c * p.grad_stride[1]] = value;
  }
  if (p.losses != nullptr) p.losses[place] = loss * kLn2;
  sums.loss += loss;
}

// Loss and gradient of scores at full size; a thread a pixel, tile after tile. Reads the scores three times (twice from
// the caches) and writes the gradient once: memory bounds it. Two exponentials a pixel and class.
template <class Score>
__global__ void __launch_bounds__(kLossPixelsPerBlock, 8) upsample_cross_entropy_full_kernel(const LossFull p) {
  const float scale = scale_of(p.divisor, p.weight == nullptr ? 0.0f : *p.weight);
  const int64_t pixels = static_cast<int64_t>(p.rows) * p.pixels.width;
  const int64_t step = static_cast<int64_t>(p.blocks) * kLossPixelsPerBlock;
  PixelSums sums;
#pragma unroll 1
  for (int64_t index = static_cast<int64_t>(blockIdx.y) * kLossPixelsPerBlock + threadIdx.x; index < pixels; index += step)
    add_pixel<Score>(p, index, scale, sums);
  const float loss = block_sum<kLossPixelsPerBlock>(sums.wrong ? NAN : sums.loss * kLn2);
  const float weight = block_sum<kLossPixelsPerBlock>(sums.weight);
  const float number = block_sum<kLossPixelsPerBlock>(sums.pixels);
  if (threadIdx.x != 0) return;
  const int64_t block = static_cast<int64_t>(blockIdx.x) * p.blocks + blockIdx.y;
  const int64_t blocks = static_cast<int64_t>(gridDim.x) * p.blocks;
  p.partials[block] = loss, p.partials[blocks + block] = weight, p.partials[2 * blocks + block] = number;
}

// The weights of the pixels that count, summed by block; bound by reading the label map.
__global__ void __launch_bounds__(kLossPixelsPerBlock)
    upsample_cross_entropy_weight_kernel(const LossPixels p, float* partials) {
  const BlockPlace at(label_blocks(p));
  const int64_t index = at.pixel();
  const int y = static_cast<int>(index / p.width), x = static_cast<int>(index - static_cast<int64_t>(y) * p.width);
  float weight = 0.0f;
  if (y < p.height) {
    bool wrong = false;
    const int kind = counted_class(p, at.image, y, x, wrong);
    if (kind != kIgnored) weight = class_factors(p, kind).own * weight_of(p, place_of(p, at.image, y, x));
  }
  weight = block_sum<kLossPixelsPerBlock>(weight);
  if (threadIdx.x == 0) partials[blockIdx.x] = weight;
}

// How many of the pixels that count have the predicted label; bound by reading both label maps.
__global__ void __launch_bounds__(kLossPixelsPerBlock)
    upsample_cross_entropy_correct_kernel(const LossPixels p, const LabelMap predicted, int* partials) {
  const BlockPlace at(label_blocks(p));
  const int64_t index = at.pixel();
  const int y = static_cast<int>(index / p.width), x = static_cast<int>(index - static_cast<int64_t>(y) * p.width);
  int correct = 0;
  if (y < p.height) {
    bool wrong = false;
    const int kind = counted_class(p, at.image, y, x, wrong);
    correct = kind != kIgnored && label_at(predicted, place_of(p, at.image, y, x)) == kind;
  }
  correct = block_sum<kLossPixelsPerBlock>(correct);
  if (threadIdx.x == 0) partials[blockIdx.x] = correct;
}

constexpr int kTotalThreads = 128;

// Sum of a kernel's partial sums, in fp64 and in a fixed order, by one block.
__device__ __forceinline__ double sum_of_partials(const float* partials, int programs) {
  double sum = 0.0;
  for (int k = threadIdx.x; k < programs; k += kTotalThreads) sum += partials[k];
  return block_sum<kTotalThreads>(sum);
}

// The loss, the scale of its reduction and how many pixels were kept.
__global__ void __launch_bounds__(kTotalThreads) upsample_cross_entropy_total_kernel(const LossTotal p) {
  const double loss = sum_of_partials(p.partials, p.programs);
  const float weight = static_cast<float>(sum_of_partials(p.partials + p.programs, p.programs));
  const double pixels = sum_of_partials(p.partials + 2 * static_cast<int64_t>(p.programs), p.programs);
  if (threadIdx.x != 0) return;
  const float factor = scale_of(p.divisor, weight);
  *p.scale = factor, *p.loss = static_cast<float>(loss * factor);
  p.stats[0] = static_cast<int64_t>(pixels), p.stats[1] = 0;
}

constexpr int kFinishThreads = 256;

// Own share, then the seam (from the band below), then the rim (from the strip to the right): always in this order.
// Points that no pixel touches become 0. Reads and writes the gradient once, which bounds it; no exponentials.
__global__ void __launch_bounds__(kFinishThreads) upsample_cross_entropy_finish_kernel(const LossFinish p) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kFinishThreads + threadIdx.x;
  const int inner = p.channels_last ? p.classes : p.width;
  const int outer_size = p.channels_last ? p.width : p.classes;
  const int64_t line = index / inner;
  const int within = static_cast<int>(index - line * inner), i_or_outer = static_cast<int>(line % p.height);
  const int64_t rest = line / p.height;
  const int n = static_cast<int>(rest / outer_size), outer = static_cast<int>(rest - static_cast<int64_t>(n) * outer_size);
  if (n >= p.images) return;
  const int c = p.channels_last ? within : outer, j = p.channels_last ? outer : within, i = i_or_outer;
  float* own = p.grad + n * p.grad_stride[0] + c * p.grad_stride[1] + i * p.grad_stride[2] + j * p.grad_stride[3];
  if (i < p.y_begin - 1 || i >= p.y_end || j < p.x_begin || j >= p.x_end) {
    *own = 0.0f;
    return;
  }
  float value = *own;
  const int f = n * p.columns + (j - p.x_begin) * p.x_parts, above = i + 1 - p.y_begin;
  if (above > 0 && above % p.band == 0 && i + 1 < p.y_end) {
    const int64_t program = static_cast<int64_t>(above / p.band) * p.strips + f / kWarp;
    value += p.seam[(program * p.classes + c) * kWarp + f % kWarp];
  }
  const int right = f + p.x_parts;
  if (j + 1 < p.x_end && right % kWarp == 0) {
    const int64_t rows = static_cast<int64_t>(p.y_end - p.y_begin) * p.y_parts;
    const int64_t first = right / kWarp * rows + static_cast<int64_t>(i - p.y_begin) * p.y_parts;
    for (int part = 0; part < 2 * p.y_parts; ++part) {
      const bool below = part >= p.y_parts;
      if (below ? i + 1 < p.y_end : i >= p.y_begin)
        value += p.rim[((first + part) * p.classes + c) * 2 + (below ? 0 : 1)];
    }
  }
  *own = value * *p.scale;
}

}  // namespace
}  // namespace fcnkern::cuda
