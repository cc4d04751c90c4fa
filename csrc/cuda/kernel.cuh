// What every kernel and launcher uses.
//
// The sources keep four rules, by which a host compiler can run the very same kernels in the tests (tests/emulator):
// kernels start by `launch`, never by <<<>>>; shared memory is declared by the two macros below; PTX stands in
// ptx.cuh beside a twin for the host; nothing else asks whether it is compiled for a device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "stream.h"

#ifdef FCNKERN_EMULATED
#define FCNKERN_SHARED(TYPE, NAME, SIZE) auto& NAME = ::cuemu::block_var<TYPE SIZE>([] {})
#define FCNKERN_DYNAMIC_SHARED(TYPE, NAME) TYPE* NAME = static_cast<TYPE*>(::cuemu::dyn_shared())
#else
#define FCNKERN_SHARED(TYPE, NAME, SIZE) __shared__ TYPE NAME SIZE
#define FCNKERN_DYNAMIC_SHARED(TYPE, NAME)                               \
  extern __shared__ __align__(16) unsigned char fcnkern_shared_memory[]; \
  TYPE* NAME = reinterpret_cast<TYPE*>(fcnkern_shared_memory)
#endif

namespace fcnkern::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
// A block has 48 KiB without asking, static and dynamic shared memory together; no kernel declares 16 KiB statically.
constexpr size_t kDynamicWithoutAsking = 32 << 10;

struct Grid {
  dim3 blocks, threads;
  size_t shared = 0;  // bytes of dynamic shared memory
};

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("fcnkern: ") + what + ": " + cudaGetErrorString(error));
}

// Makes a device the current one while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_), "the current CUDA device");
    if (device != previous_) check(cudaSetDevice(device), "choosing a CUDA device");
    changed_ = device != previous_;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

template <class... P>
cudaError_t ask_for_shared(void (*kernel)(P...), const Grid& grid) {
  if (grid.shared <= kDynamicWithoutAsking) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared));
}

// How many blocks of a kernel run at once, by what it takes; a few in the emulator, so that work is split there too.
template <class... P>
unsigned resident_blocks(void (*kernel)(P...), const Grid& grid, const Stream& stream) {
#ifdef FCNKERN_EMULATED
  return 3;
#else
  const DeviceGuard guard(stream.device);
  const int threads = static_cast<int>(grid.threads.x * grid.threads.y * grid.threads.z);
  int blocks = 0, processors = 0;
  check(ask_for_shared(kernel, grid), "shared memory");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, grid.shared), "the blocks of a kernel");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, stream.device), "the multiprocessors");
  return static_cast<unsigned>(blocks * processors);
#endif
}

template <class... P, class... A>
cudaError_t start(void (*kernel)(P...), const Grid& grid, cudaStream_t stream, A&&... arguments) {
  const cudaError_t refused = ask_for_shared(kernel, grid);
  if (refused != cudaSuccess) return refused;
#ifdef FCNKERN_EMULATED
  (void)stream;
  return cuemu::launch(kernel, grid.blocks, grid.threads, grid.shared, arguments...);
#else
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks, config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared, config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
#endif
}

// Queues a kernel; nothing where the grid is empty. Throws std::runtime_error with the kernel's name.
template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const Grid& grid, const Stream& stream, A&&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
#ifdef FCNKERN_EMULATED
  cuemu::note_launch(name);
#endif
  const DeviceGuard guard(stream.device);
  const auto handle = static_cast<cudaStream_t>(stream.handle);
  const cudaError_t error = start(kernel, grid, handle, std::forward<A>(arguments)...);
  if (error != cudaSuccess) {
    cudaGetLastError();  // an error of a launch must not be found again by the next one
    check(error, (std::string("the CUDA kernel ") + name).c_str());
  }
}

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace fcnkern::cuda
