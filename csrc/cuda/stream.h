// Where a kernel is to run.
#pragma once

namespace fcnkern::cuda {

struct Stream {
  int device;
  void* handle;  // a cudaStream_t of that device
};

}  // namespace fcnkern::cuda
