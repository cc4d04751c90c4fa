// Python's arguments as the structs of csrc/include: tensors are addresses, type codes, sizes and strides (in elements).
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <optional>
#include <tuple>

#include "labels.h"
#include "upsampling.h"
#include "views.h"

namespace fcnkern {

// A label map is (address, label type, strides).
using LabelMapArgs = std::tuple<uintptr_t, int, std::array<int64_t, 3>>;

inline LabelMap label_map(const LabelMapArgs& args) {
  const auto& [address, type, strides] = args;
  return {reinterpret_cast<const void*>(address), static_cast<LabelType>(type),
          {strides[0], strides[1], strides[2]}};
}

// Scores are (address, type, sizes, strides), an axis is a fcnkern.resample.Axis; with them goes whether a tap of
// weight 0 is no tap.
using ScoresArgs = std::tuple<uintptr_t, int, std::array<int64_t, 4>, std::array<int64_t, 4>>;
using AxisArgs = std::tuple<int64_t, int64_t, double, double, bool>;
using UpsamplingArgs = std::tuple<ScoresArgs, AxisArgs, AxisArgs, bool>;

inline ResampleAxis resample_axis(const AxisArgs& args) {
  return std::apply([](auto... number) { return ResampleAxis{number...}; }, args);
}

inline Scores scores(const ScoresArgs& args) {
  const auto& [address, type, size, strides] = args;
  return {reinterpret_cast<const void*>(address),
          static_cast<DType>(type),
          size[0],
          size[1],
          size[2],
          size[3],
          {strides[0], strides[1], strides[2], strides[3]}};
}

inline Upsampling upsampling(const UpsamplingArgs& args) {
  const auto& [given, rows, columns, skip_zero_weights] = args;
  return {scores(given), resample_axis(rows), resample_axis(columns), skip_zero_weights};
}

// A tensor is (address, type, strides), None where there is none.
using TensorArgs = std::optional<std::tuple<uintptr_t, int, std::array<int64_t, 4>>>;

inline TensorView tensor_view(const TensorArgs& args) {
  if (!args) return {nullptr, DType::kF32, {0, 0, 0, 0}};
  const auto& [address, type, strides] = *args;
  return {reinterpret_cast<void*>(address), static_cast<DType>(type),
          {strides[0], strides[1], strides[2], strides[3]}};
}

}  // namespace fcnkern
