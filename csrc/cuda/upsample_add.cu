#include "upsample_add.h"

#include <algorithm>

#include "upsample_add_bwd.cuh"
#include "upsample_add_fwd.cuh"
#include "upsample_add_taps.cuh"

namespace fcnkern::cuda {
namespace {

constexpr int kFewChannels = 8, kManyChannels = 24;  // 21 classes take one block of 24
constexpr int kPairsOfChannels = 8;
constexpr int kWalkChannels = 4;
constexpr int kMostBlocksDown = 65535;
constexpr int kBlocksOfWalk = 132 * 16;  // fill the largest GPUs; a band of rows is no shorter than two strides

unsigned blocks_of(int64_t threads) { return static_cast<unsigned>(ceil_div<int64_t>(threads, kUpsampleThreads)); }

template <class T, int CB>
void launch_product(const UpsampleAdd& p, const Stream& stream) {
  const Deconv& d = p.deconv;
  const unsigned tiles = blocks_of(static_cast<int64_t>(cells(d, 0)) * cells(d, 1));
  const int blocks = ceil_div(d.outputs, CB), phases = d.stride[0] * ceil_div(d.stride[1], kPair);
  const Grid grid{dim3(tiles * blocks * d.images, phases), dim3(kUpsampleThreads)};
  launch("upsample_add_product_fwd_kernel", upsample_add_product_fwd_kernel<T, CB>, grid, stream, p, tiles, blocks);
}

bool has_neighbouring_channels(const Deconv& d) { return d.y.stride[1] == 1 && d.outputs > 1; }

template <class T, int kChannels>
void launch_walk(const UpsampleAdd& p, const Stream& stream) {
  const Deconv& d = p.deconv;
  const int64_t apart = ceil_div(d.outputs, kChannels);
  const unsigned blocks = blocks_of(d.images * apart * d.size[1]);
  const int most = std::min(ceil_div(d.size[0], 2 * d.stride[0]), kMostBlocksDown), wanted = ceil_div<int>(kBlocksOfWalk, blocks);
  const int band = ceil_div(d.size[0], std::max(1, std::min(most, wanted)));
  const Walk walk{has_neighbouring_channels(d), band, static_cast<int>(apart), apart * d.x.stride[1], apart * d.weight.stride[0],
                  apart * p.skip.stride[1], apart * d.y.stride[1]};
  const Grid grid{dim3(blocks, ceil_div(d.size[0], band)), dim3(kUpsampleThreads)};
  const auto kernel = d.kind == DeconvKind::kBilinear ? upsample_add_walk_fwd_kernel<T, true, kChannels>
                                                      : upsample_add_walk_fwd_kernel<T, false, kChannels>;
  launch("upsample_add_walk_fwd_kernel", kernel, grid, stream, p, walk);
}

template <class T>
void launch_taps(const UpsampleAdd& p, const Stream& stream) {
  const Deconv& d = p.deconv;
  if (d.kernel[0] <= 2 * d.stride[0] && d.kernel[1] <= 2 * d.stride[1])
    return d.outputs == 1 ? launch_walk<T, 1>(p, stream) : launch_walk<T, kWalkChannels>(p, stream);
  const unsigned blocks = blocks_of(static_cast<int64_t>(d.images) * d.outputs * d.size[1]);
  const Grid grid{dim3(blocks, std::min(d.size[0], kMostBlocksDown)), dim3(kUpsampleThreads)};
  launch("upsample_add_taps_fwd_kernel", upsample_add_taps_fwd_kernel<T>, grid, stream, p, has_neighbouring_channels(d));
}

template <class T, int CB>
void launch_dense_grad_x(const Deconv& p, const TensorView& grad_x, const Stream& stream) {
  const unsigned tiles = blocks_of(static_cast<int64_t>(p.height) * p.width);
  const int blocks = ceil_div(p.inputs, CB);
  const Grid grid{dim3(tiles * blocks * p.images), dim3(kUpsampleThreads)};
  launch("upsample_add_dense_grad_x_kernel", upsample_add_dense_grad_x_kernel<T, CB>, grid, stream, p, grad_x, tiles,
         blocks);
}

template <class T, int CB>
void launch_grad_weight(const Deconv& p, float* partials, int parts, const Stream& stream) {
  const bool dense = p.kind == DeconvKind::kDense;
  const int input_blocks = dense ? ceil_div(p.inputs, CB) : 1, output_blocks = ceil_div(p.outputs, CB);
  const int64_t blocks = static_cast<int64_t>(p.kernel[0]) * p.kernel[1] * input_blocks * output_blocks * parts;
  const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(kUpsampleThreads)};
  launch("upsample_add_grad_weight_kernel", upsample_add_grad_weight_kernel<T, CB>, grid, stream, p, partials, parts,
         input_blocks, output_blocks);
}

}  // namespace

void upsample_add_fwd(const UpsampleAdd& params, const Stream& stream) {
  const Deconv& d = params.deconv;
  with_element_type(d.x.dtype, [&](auto value) {
    using T = decltype(value);
    if (params.features > 0 || d.kind == DeconvKind::kDense) {
      if (d.outputs <= kFewChannels) return launch_product<T, kFewChannels>(params, stream);
      return launch_product<T, kManyChannels>(params, stream);
    }
    launch_taps<T>(params, stream);
  });
}

void upsample_add_grad_x(const Deconv& params, const TensorView& grad_x, const Stream& stream) {
  with_element_type(params.x.dtype, [&](auto value) {
    using T = decltype(value);
    if (params.kind == DeconvKind::kDense) {
      if (params.inputs <= kFewChannels) return launch_dense_grad_x<T, kFewChannels>(params, grad_x, stream);
      return launch_dense_grad_x<T, kManyChannels>(params, grad_x, stream);
    }
    const int64_t elements = static_cast<int64_t>(params.images) * params.inputs * params.height * params.width;
    const Grid grid{dim3(blocks_of(elements)), dim3(kUpsampleThreads)};
    const bool bilinear = params.kind == DeconvKind::kBilinear;
    const auto kernel = bilinear ? upsample_add_taps_grad_x_kernel<T, true> : upsample_add_taps_grad_x_kernel<T, false>;
    launch("upsample_add_taps_grad_x_kernel", kernel, grid, stream, params, grad_x);
  });
}

void upsample_add_grad_weight(const Deconv& params, float* partials, int parts, const Stream& stream) {
  with_element_type(params.x.dtype, [&](auto value) {
    using T = decltype(value);
    if (params.kind == DeconvKind::kDense) return launch_grad_weight<T, kPairsOfChannels>(params, partials, parts, stream);
    launch_grad_weight<T, 1>(params, partials, parts, stream);
  });
}

}  // namespace fcnkern::cuda
