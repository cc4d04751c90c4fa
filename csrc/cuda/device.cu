#include "device.h"

#include "kernel.cuh"

namespace fcnkern::cuda {
namespace {

__global__ void probe_kernel() {}

}  // namespace

std::pair<int, std::string> device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return {count, ""};
  cudaGetLastError();
  return {0, error == cudaSuccess ? "there is no CUDA device" : cudaGetErrorString(error)};
}

std::optional<std::string> device_refusal(int device) {
  const DeviceGuard guard(device);
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  if (error == cudaSuccess) return std::nullopt;
  cudaGetLastError();
  return cudaGetErrorString(error);
}

}  // namespace fcnkern::cuda
