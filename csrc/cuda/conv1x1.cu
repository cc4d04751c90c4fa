#include "conv1x1.h"

#include "conv1x1_product.cuh"

namespace fcnkern::cuda {
namespace {

PixelAxis pixel_axis(const Conv1x1Size& size) {
  return {size.images * size.height * size.width, size.height * size.width, size.width};
}

template <class T>
Image<T> image(const TensorView& view, const Conv1x1Size& size, int64_t channels, int longest = kWidestRun<T>) {
  return image_of<T>(view, channels, size.height, size.width, longest);
}

dim3 blocks_of(int64_t count, int64_t ranges = 1) {
  if (count > INT32_MAX) throw std::invalid_argument("fcnkern: conv1x1: too many pixels for one launch");
  return {static_cast<unsigned>(count), static_cast<unsigned>(ranges)};
}

template <bool SUMS_PIXELS, bool COLUMNS_FAST, class T, class Result>
void multiply(Product<T, Result>& p, const Epilogue<T>& epilogue, int64_t ranges, const Stream& stream) {
  const int64_t block_rows = min(p.rows, static_cast<int64_t>(kMaxRows));
  const FmaShares shares(block_rows);
  p.tile_rows = sizeof(T) == 4 ? shares.block_rows() : static_cast<int>(ceil_div<int64_t>(block_rows, 8)) * 8;
  const int64_t tiles = ceil_div<int64_t>(p.columns, kColumns) * ceil_div<int64_t>(p.rows, p.tile_rows);
  const Grid grid{blocks_of(tiles, ranges), kProductThreads,
                  Tiles<T, Result, COLUMNS_FAST, SUMS_PIXELS>::shared_bytes(p.tile_rows)};
  if constexpr (sizeof(T) == 4)
    launch("conv1x1_fma_kernel", conv1x1_fma_kernel<COLUMNS_FAST, SUMS_PIXELS>, grid, stream, p, epilogue, shares);
  else
    launch("conv1x1_mma_kernel", conv1x1_mma_kernel<T, Result, COLUMNS_FAST, SUMS_PIXELS>, grid, stream, p, epilogue);
}

// The longest runs of the depth of the small factor whose copies are aligned.
template <class T, class Result>
void set_small_runs(Product<T, Result>& p) {
  p.small_rows_fast = p.small_row == 1 && p.rows > 1;
  const auto holds = [&](int64_t run) {
    const auto bytes = static_cast<uintptr_t>(run) * sizeof(T);
    return reinterpret_cast<uintptr_t>(p.small) % bytes == 0 && p.small_row % run == 0 && p.depth % run == 0;
  };
  if (p.small_depth == 1)
    while ((2 << p.small_run_log) <= kWidestRun<T> && holds(2 << p.small_run_log)) ++p.small_run_log;
}

template <class T>
void forward(const Conv1x1Params& params, const Stream& stream) {
  const Conv1x1Size& size = params.size;
  Product<T, T> p{};
  p.pixels = pixel_axis(size);
  p.rows = size.outputs, p.columns = p.pixels.count, p.depth = size.inputs;
  p.large = image<T>(params.x, size, size.inputs), p.result = image<T>(params.y, size, size.outputs, 4);
  p.small = static_cast<const T*>(params.weight.data);
  p.small_row = params.weight.stride[0], p.small_depth = params.weight.stride[1];
  set_small_runs(p);
  const Epilogue<T> epilogue = epilogue_of<T>(params);
  if (p.large.channels_fast) multiply<false, false>(p, epilogue, 1, stream);
  else multiply<false, true>(p, epilogue, 1, stream);
}

template <class T>
void add_ranges(const Conv1x1GradWeightParams& params, int64_t first, int64_t count, const TensorView& result,
                double scale, const Stream& stream) {
  const int64_t row = params.size.outputs * (params.size.inputs + 1);
  launch("conv1x1_sum_kernel", conv1x1_sum_kernel<T>, Grid{blocks_of(ceil_div<int64_t>(count, kWarp)), kSumLanes * kWarp},
         stream, params.sums + first, params.ranges, row, count, static_cast<T*>(result.data), static_cast<float>(scale));
}

template <class T>
void grad_weight(const Conv1x1GradWeightParams& params, const Stream& stream) {
  const Conv1x1Size& size = params.size;
  const int64_t weights = size.outputs * size.inputs;
  const Image<T> grad = image<T>(params.grad, size, size.outputs);
  Product<T, float> p{};
  p.pixels = pixel_axis(size);
  p.rows = size.outputs, p.columns = params.grad_weight.data == nullptr ? 1 : size.inputs, p.depth = p.pixels.count;
  p.large = image<T>(params.x, size, size.inputs);
  p.small = grad.data, p.small_row = grad.channel, p.small_pixel = grad.pixel;
  p.small_rows_fast = grad.channels_fast, p.small_run_log = grad.channels_fast ? 0 : grad.run_log;
  p.result = {params.sums, {0, 0, 0}, size.inputs, false, 0};
  p.span = params.span, p.range_stride = weights + size.outputs;
  p.row_sums = params.grad_bias.data == nullptr ? nullptr : params.sums + weights;
  if (p.large.channels_fast) multiply<true, true>(p, Epilogue<T>{}, params.ranges, stream);
  else multiply<true, false>(p, Epilogue<T>{}, params.ranges, stream);
  if (params.grad_weight.data != nullptr)
    add_ranges<T>(params, 0, weights, params.grad_weight, params.weight_scale, stream);
  if (params.grad_bias.data != nullptr)
    add_ranges<T>(params, weights, size.outputs, params.grad_bias, params.bias_scale, stream);
}

int64_t pass_tiles(const Conv1x1Size& size) {
  return ceil_div<int64_t>(pixel_axis(size).count, kColumns) * ceil_div<int64_t>(size.outputs, kPassRows);
}

}  // namespace

void conv1x1_forward(const Conv1x1Params& params, const Stream& stream) {
  with_element_type(params.x.dtype, [&](auto type) { forward<decltype(type)>(params, stream); });
}

void conv1x1_grad_weight(const Conv1x1GradWeightParams& params, const Stream& stream) {
  with_element_type(params.x.dtype, [&](auto type) { grad_weight<decltype(type)>(params, stream); });
}

void conv1x1_epilogue(const Conv1x1Params& params, const Stream& stream) {
  with_element_type(params.y.dtype, [&](auto type) {
    using T = decltype(type);
    const Grid grid{blocks_of(pass_tiles(params.size)), kPassThreads};
    launch("conv1x1_epilogue_kernel", conv1x1_epilogue_kernel<T>, grid, stream, pixel_axis(params.size),
           params.size.outputs, image<T>(params.y, params.size, params.size.outputs, 4), epilogue_of<T>(params));
  });
}

void conv1x1_mask(const Conv1x1MaskParams& params, const Stream& stream) {
  with_element_type(params.grad.dtype, [&](auto type) {
    using T = decltype(type);
    const Conv1x1Size& size = params.size;
    const auto view = [&](const TensorView& tensor) { return image<T>(tensor, size, size.outputs, 4); };
    launch("conv1x1_mask_kernel", conv1x1_mask_kernel<T>, Grid{blocks_of(pass_tiles(size)), kPassThreads}, stream,
           pixel_axis(size), size.outputs, view(params.grad), view(params.y), view(params.result),
           dropout_of(params.dropout, size.outputs, size.height * size.width));
  });
}

}  // namespace fcnkern::cuda
