// Cases of the detector: kernels with a fault that an argument plants. With fault 0 they are right.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "cuda/kernel.cuh"

using fcnkern::cuda::Grid;
using fcnkern::cuda::launch;

struct Case {
  const char* name;
  bool (*run)(int fault);  // whether the result is right; throws where the launch fails
};

extern const std::vector<Case> kMemoryCases, kOrderCases, kCollectiveCases, kLimitCases;

constexpr fcnkern::cuda::Stream kStream{0, nullptr};

// 0, 1, 2, ...
inline std::vector<float> counting(int count) {
  std::vector<float> result(count);
  for (int i = 0; i < count; ++i) result[i] = static_cast<float>(i);
  return result;
}
