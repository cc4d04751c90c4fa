// The CUDA runtime that host code calls: one device, one stream, on which everything has been done when a
// call returns. Weak, so that a program that links the real one takes that.
#pragma once

#include "cuda_emu_launch.h"

extern "C" {

__attribute__((weak)) cudaError_t cudaGetLastError() { return cudaSuccess; }

__attribute__((weak)) cudaError_t cudaPeekAtLastError() { return cudaSuccess; }

__attribute__((weak)) const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorLaunchFailure: return cuemu::machine().error;
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidValue: return "invalid argument";
    default: return "CUDA error (emulated)";
  }
}

__attribute__((weak)) cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

__attribute__((weak)) cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

__attribute__((weak)) cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

__attribute__((weak)) cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) {
  return cudaSuccess;
}

__attribute__((weak)) cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  memset(memory, value, bytes);
  return cudaSuccess;
}

__attribute__((weak)) cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute,
                                                       int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (size_t(value) > cuemu::machine().config.shared_limit) return cudaErrorInvalidValue;
  for (auto& known : cuemu::machine().attributes) {
    if (known.kernel && known.kernel != kernel) continue;
    known = {kernel, size_t(value)};
    return cudaSuccess;
  }
  return cudaErrorMemoryAllocation;
}

}  // extern "C"

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel* kernel) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}
