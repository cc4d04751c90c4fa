#include "upsample_add.h"

#include "upsample_add_bwd.cuh"
#include "upsample_add_fwd.cuh"

namespace fcnkern::cuda {
namespace {

constexpr int kFewChannels = 8, kManyChannels = 24;  // 21 classes take one block of 24
constexpr int kPairsOfChannels = 8;

unsigned blocks_of(int64_t threads) { return static_cast<unsigned>(ceil_div<int64_t>(threads, kUpsampleThreads)); }

template <class T, int CB>
void launch_product(const UpsampleAdd& p, const Stream& stream) {
  const Deconv& d = p.deconv;
  const int64_t cells = static_cast<int64_t>(d.size[0] / d.stride[0] + 2) * (d.size[1] / d.stride[1] + 2);
  const unsigned tiles = blocks_of(cells);
  const int blocks = ceil_div(d.outputs, CB), phases = d.stride[0] * ceil_div(d.stride[1], kPair);
  const Grid grid{dim3(tiles * blocks * d.images, phases), dim3(kUpsampleThreads)};
  launch("upsample_add_product_fwd_kernel", upsample_add_product_fwd_kernel<T, CB>, grid, stream, p, tiles, blocks);
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
    const bool channels_last = d.y.stride[1] == 1 && d.outputs > 1;
    const int inner = channels_last ? d.outputs : d.size[1], lines = channels_last ? d.size[1] : d.outputs;
    const int64_t runs = static_cast<int64_t>(d.images) * lines * d.size[0] * ceil_div(inner, kRun);
    launch("upsample_add_taps_fwd_kernel", upsample_add_taps_fwd_kernel<T>, Grid{dim3(blocks_of(runs)), dim3(kUpsampleThreads)},
           stream, params, channels_last);
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
    launch("upsample_add_taps_grad_x_kernel", upsample_add_taps_grad_x_kernel<T>,
           Grid{dim3(blocks_of(elements)), dim3(kUpsampleThreads)}, stream, params, grad_x);
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
