// fcnkern._C: the CPU kernels for Python. Tensors arrive as addresses, sizes and strides (in elements).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arguments.h"
#include "confusion_matrix.h"
#include "conv1x1.h"
#include "huge_pages.h"
#include "philox.h"
#include "isa.h"
#include "max_pool2d.h"
#include "upsample_add.h"
#include "upsample_argmax.h"
#include "upsample_cross_entropy.h"

namespace py = pybind11;

namespace fcnkern {
namespace {

#ifdef __clang__
constexpr const char* kCompiler = __VERSION__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

#ifdef _OPENMP
constexpr bool kOpenMP = true;
#else
constexpr bool kOpenMP = false;
#endif

struct Level {
  Isa isa;
  const char* name;
  bool runs;  // on this processor
};

// The levels that this build holds, worst first.
std::vector<Level> built_levels() {
  std::vector<Level> levels{{Isa::kGeneric, "generic", true}};
#if defined(FCNKERN_WITH_AVX2) || defined(FCNKERN_WITH_AVX512)
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef FCNKERN_WITH_AVX2
  levels.push_back({Isa::kAvx2, "avx2", fma});
#endif
#ifdef FCNKERN_WITH_AVX512
  levels.push_back({Isa::kAvx512, "avx512",
                    fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")});
#endif
  return levels;
}

Isa best_isa() {
  Isa best = Isa::kGeneric;
  for (const Level& level : built_levels())
    if (level.runs) best = level.isa;
  return best;
}

std::atomic<Isa> g_isa{Isa::kGeneric};

void use_isa(const std::string& name) {
  std::string known;
  for (const Level& level : built_levels()) {
    if (!level.runs) continue;
    if (name == level.name) {
      g_isa = level.isa;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(level.name);
  }
  throw py::value_error("instruction-set level '" + name + "': this build on this processor runs " + known);
}

py::dict build_info() {
  py::list built, usable;
  py::dict info;
  for (const Level& level : built_levels()) {
    built.append(level.name);
    if (level.runs) usable.append(level.name);
    if (level.isa == active_isa()) info["isa"] = level.name;
  }
  info["version"] = FCNKERN_VERSION;
  info["compiler"] = kCompiler;
  info["openmp"] = kOpenMP;
  info["isas_built"] = built;
  info["isas"] = usable;
  return info;
}

std::array<uint32_t, 4> philox(uint64_t key, std::array<uint32_t, 4> counter) {
  const PhiloxBlock block = philox4x32(key, {{counter[0], counter[1], counter[2], counter[3]}});
  return {block.word[0], block.word[1], block.word[2], block.word[3]};
}

void upsample_argmax(const UpsamplingArgs& scores, uintptr_t labels, int label_type, uintptr_t confidence,
                     int threads) {
  const UpsampleArgmaxParams params{upsampling(scores), static_cast<LabelType>(label_type),
                                    reinterpret_cast<void*>(labels), reinterpret_cast<void*>(confidence), threads};
  py::gil_scoped_release release;
  FCNKERN_CALL(upsample_argmax, params);
}

// The first invalid label as (position, value, in target), or nothing.
using LabelErrorResult = std::optional<std::tuple<int64_t, int64_t, bool>>;

LabelErrorResult label_error(const LabelError& error) {
  if (error.position < 0) return std::nullopt;
  return std::make_tuple(error.position, error.value, error.in_target);
}

ConfusionMatrixParams confusion_params(const LabelMapArgs& target, const std::array<int64_t, 3>& size,
                                       int64_t num_classes, std::optional<int64_t> ignore_index,
                                       uintptr_t matrix, int threads) {
  return {label_map(target),        size[0],   size[1], size[2], num_classes, ignore_index.has_value(),
          ignore_index.value_or(0), reinterpret_cast<int64_t*>(matrix), threads};
}

LabelErrorResult confusion_of_labels(const LabelMapArgs& prediction, const LabelMapArgs& target,
                                     const std::array<int64_t, 3>& size, int64_t num_classes,
                                     std::optional<int64_t> ignore_index, uintptr_t matrix, int threads) {
  const auto params = confusion_params(target, size, num_classes, ignore_index, matrix, threads);
  const LabelMap predicted = label_map(prediction);
  py::gil_scoped_release release;
  return label_error(FCNKERN_CALL(confusion_of_labels, params, predicted));
}

LabelErrorResult confusion_of_scores(const UpsamplingArgs& prediction, const LabelMapArgs& target,
                                     const std::array<int64_t, 3>& size, int64_t num_classes,
                                     std::optional<int64_t> ignore_index, uintptr_t matrix, int threads) {
  const auto params = confusion_params(target, size, num_classes, ignore_index, matrix, threads);
  const Upsampling predicted = upsampling(prediction);
  py::gil_scoped_release release;
  return label_error(FCNKERN_CALL(confusion_of_scores, params, predicted));
}

// size: images, inputs, outputs, height, width.
Conv1x1Params conv1x1_params(const std::array<int64_t, 5>& size, const TensorArgs& x, const TensorArgs& weight,
                             const TensorArgs& bias, const TensorArgs& y, double scale, int threads) {
  Conv1x1Params params{};
  params.images = size[0], params.inputs = size[1], params.outputs = size[2];
  params.height = size[3], params.width = size[4];
  params.x = tensor_view(x), params.y = tensor_view(y);
  params.weight = tensor_view(weight), params.bias = tensor_view(bias);
  params.scale = scale, params.threads = threads;
  return params;
}

void conv1x1_forward(const std::array<int64_t, 5>& size, const TensorArgs& x, const TensorArgs& weight,
                     const TensorArgs& bias, const TensorArgs& y, double scale, bool relu, double dropout_p,
                     uint64_t seed, int threads) {
  Conv1x1Params params = conv1x1_params(size, x, weight, bias, y, scale, threads);
  params.relu = relu, params.dropout_p = dropout_p, params.seed = seed;
  py::gil_scoped_release release;
  FCNKERN_CALL(conv1x1_forward, params);
}

void conv1x1_grad_weight(const std::array<int64_t, 5>& size, const TensorArgs& x, const TensorArgs& weight,
                         const TensorArgs& bias, const TensorArgs& y, double scale, int threads) {
  const Conv1x1Params params = conv1x1_params(size, x, weight, bias, y, scale, threads);
  py::gil_scoped_release release;
  FCNKERN_CALL(conv1x1_grad_weight, params);
}

// size: images, channels, height, width.
void conv1x1_mask(const std::array<int64_t, 4>& size, const TensorArgs& grad, const TensorArgs& y,
                  const TensorArgs& result, double dropout_p, uint64_t seed, int threads) {
  const Conv1x1MaskParams params{size[0],   size[1], size[2], size[3], tensor_view(grad), tensor_view(y),
                                 tensor_view(result), dropout_p, seed, threads};
  py::gil_scoped_release release;
  FCNKERN_CALL(conv1x1_mask, params);
}

// size: images, inputs, outputs, height, width; window: first row and column, end row and column. x and weight are dense
// arrays of the accumulation type. weight_kind: 0 dense, 1 depthwise, 2 one kernel for all channels.
DeconvParams deconv_params(const std::array<int64_t, 5>& size, const std::array<int64_t, 2>& kernel,
                           const std::array<int64_t, 2>& stride, const std::array<int64_t, 4>& window, int weight_kind,
                           uintptr_t x, uintptr_t weight, const TensorArgs& y, int threads) {
  DeconvParams params{};
  params.images = size[0], params.inputs = size[1], params.outputs = size[2];
  params.height = size[3], params.width = size[4];
  for (int axis = 0; axis < 2; ++axis) {
    params.kernel[axis] = kernel[axis], params.stride[axis] = stride[axis];
    params.begin[axis] = window[axis], params.end[axis] = window[axis + 2];
  }
  params.depthwise = weight_kind > 0, params.shared = weight_kind == 2;
  params.x = reinterpret_cast<const void*>(x), params.weight = reinterpret_cast<const void*>(weight);
  params.y = tensor_view(y), params.threads = threads;
  return params;
}

void upsample_add_forward(const std::array<int64_t, 5>& size, const std::array<int64_t, 2>& kernel,
                          const std::array<int64_t, 2>& stride, const std::array<int64_t, 4>& window, int weight_kind,
                          uintptr_t x, uintptr_t weight, const TensorArgs& y, int threads, const TensorArgs& skip,
                          int64_t skip_channels, const TensorArgs& skip_weight, const TensorArgs& skip_bias,
                          double skip_scale) {
  const UpsampleAddParams params{
      deconv_params(size, kernel, stride, window, weight_kind, x, weight, y, threads),
      tensor_view(skip), skip_channels, tensor_view(skip_weight), tensor_view(skip_bias), skip_scale};
  py::gil_scoped_release release;
  FCNKERN_CALL(upsample_add_forward, params);
}

// Writes the gradients whose addresses are not 0.
void deconv_backward(const std::array<int64_t, 5>& size, const std::array<int64_t, 2>& kernel,
                     const std::array<int64_t, 2>& stride, const std::array<int64_t, 4>& window, int weight_kind,
                     uintptr_t x, uintptr_t weight, const TensorArgs& grad, int threads, uintptr_t grad_x,
                     uintptr_t grad_weight) {
  const DeconvParams params = deconv_params(size, kernel, stride, window, weight_kind, x, weight, grad, threads);
  py::gil_scoped_release release;
  if (grad_x != 0) FCNKERN_CALL(deconv_grad_input, params, reinterpret_cast<void*>(grad_x));
  if (grad_weight != 0) FCNKERN_CALL(deconv_grad_weight, params, reinterpret_cast<void*>(grad_weight));
}

// size: images, channels, height, width; window: kernel, stride and padding, rows before columns. All tensors are dense.
MaxPool2dParams max_pool2d_params(const std::array<int64_t, 4>& size, const std::array<int64_t, 2>& out_size,
                                  const std::array<int64_t, 6>& window, int type, bool channels_last, bool relu,
                                  uintptr_t x, uintptr_t y, uintptr_t winners, int threads) {
  MaxPool2dParams params{};
  params.images = size[0], params.channels = size[1];
  for (int axis = 0; axis < 2; ++axis) {
    params.size[axis] = size[axis + 2], params.out_size[axis] = out_size[axis];
    params.kernel[axis] = window[axis], params.stride[axis] = window[axis + 2], params.padding[axis] = window[axis + 4];
  }
  params.dtype = static_cast<DType>(type), params.channels_last = channels_last, params.relu = relu;
  params.x = reinterpret_cast<void*>(x), params.y = reinterpret_cast<void*>(y);
  params.winners = reinterpret_cast<uint8_t*>(winners), params.threads = threads;
  return params;
}

template <void (*kRun)(const MaxPool2dParams&)>
void max_pool2d(const std::array<int64_t, 4>& size, const std::array<int64_t, 2>& out_size,
                const std::array<int64_t, 6>& window, int type, bool channels_last, bool relu, uintptr_t x,
                uintptr_t y, uintptr_t winners, int threads) {
  const MaxPool2dParams params =
      max_pool2d_params(size, out_size, window, type, channels_last, relu, x, y, winners, threads);
  py::gil_scoped_release release;
  kRun(params);
}

void max_pool2d_forward(const MaxPool2dParams& params) { FCNKERN_CALL(max_pool2d_forward, params); }
void max_pool2d_backward(const MaxPool2dParams& params) { FCNKERN_CALL(max_pool2d_backward, params); }

template <class T>
const T* pointer_or_null(const std::vector<T>& values) {
  return values.empty() ? nullptr : values.data();
}

// (loss, sum of weights, valid, correct, label error or nothing); addresses of 0 stand for tensors that are not there.
using LossResult = std::tuple<double, double, int64_t, int64_t, LabelErrorResult>;

LossResult upsample_cross_entropy(const UpsamplingArgs& scores, const LabelMapArgs& target, int64_t ignore_index,
                                  const std::vector<double>& class_weight, double label_smoothing,
                                  const std::vector<double>& keep, int64_t cell, uint64_t seed,
                                  const std::array<int64_t, 2>& origin, uintptr_t hard_losses,
                                  const std::array<double, 2>& hard_cuts, uintptr_t pixel_weight, double divisor,
                                  uintptr_t losses, uintptr_t grad, bool channels_last, bool count_correct,
                                  int threads) {
  UpsampleCrossEntropyParams params{};
  params.upsampling = upsampling(scores);
  params.target = label_map(target), params.ignore_index = ignore_index;
  params.class_weight = pointer_or_null(class_weight), params.label_smoothing = label_smoothing;
  params.keep = pointer_or_null(keep), params.keep_count = static_cast<int64_t>(keep.size());
  params.cell = cell, params.seed = seed, params.first_image = origin[0], params.first_row = origin[1];
  params.hard_losses = reinterpret_cast<const void*>(hard_losses);
  params.hard_above = hard_cuts[0], params.hard_from = hard_cuts[1];
  params.pixel_weight = reinterpret_cast<const void*>(pixel_weight), params.divisor = divisor;
  params.losses = reinterpret_cast<void*>(losses), params.grad = reinterpret_cast<void*>(grad);
  params.channels_last = channels_last, params.count_correct = count_correct, params.threads = threads;
  py::gil_scoped_release release;
  const UpsampleCrossEntropyResult result = FCNKERN_CALL(upsample_cross_entropy, params);
  return {result.loss, result.weight, result.valid, result.correct, label_error(result.error)};
}

}  // namespace

Isa active_isa() { return g_isa.load(std::memory_order_relaxed); }

bool g_poison_scratch = false;

}  // namespace fcnkern

PYBIND11_MODULE(_C, m) {
  m.doc() = "CPU kernels of fcnkern; called through fcnkern.backends.cpu.";
  fcnkern::g_isa = fcnkern::best_isa();
  m.def("build_info", &fcnkern::build_info,
        "Version, compiler, OpenMP, and the instruction-set levels: in force, usable here, built.");
  m.def("use_isa", &fcnkern::use_isa, py::arg("name"),
        "Puts another instruction-set level in force; ValueError where it is not built or does not run.");
  m.def("conv1x1_forward", &fcnkern::conv1x1_forward, "1x1 convolution with ReLU and dropout.");
  m.def("conv1x1_grad_weight", &fcnkern::conv1x1_grad_weight, "Gradients of weight and bias of a 1x1 convolution.");
  m.def("conv1x1_mask", &fcnkern::conv1x1_mask, "Gradient before ReLU and dropout of a 1x1 convolution.");
  m.def("max_pool2d_forward", &fcnkern::max_pool2d<fcnkern::max_pool2d_forward>, "Max pooling, and its winners.");
  m.def("max_pool2d_backward", &fcnkern::max_pool2d<fcnkern::max_pool2d_backward>, "Gradient of a max pooling.");
  m.def("upsample_add_forward", &fcnkern::upsample_add_forward, "Transposed convolution plus a cropped skip.");
  m.def("deconv_backward", &fcnkern::deconv_backward, "Gradients of a transposed convolution.");
  m.def("confusion_of_labels", &fcnkern::confusion_of_labels, "Confusion matrix of two label maps.");
  m.def("confusion_of_scores", &fcnkern::confusion_of_scores, "Confusion matrix of upsampled scores.");
  m.def("upsample_argmax", &fcnkern::upsample_argmax, "Label map, and confidences, of upsampled scores.");
  m.def("upsample_cross_entropy", &fcnkern::upsample_cross_entropy,
        "Softmax cross-entropy of resampled scores and its gradient.");
  m.def("advise_huge_pages", &fcnkern::advise_huge_pages, "Asks for pages of 2 MiB for so many bytes from an address.");
  m.def("philox4x32", &fcnkern::philox, "Philox4x32-10 of a 64-bit key and four counter words.");
  m.def(
      "poison_scratch", [](bool on) { fcnkern::g_poison_scratch = on; }, "Fill scratch memory with NaN (tests).");
}
