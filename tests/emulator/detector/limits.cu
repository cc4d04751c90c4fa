// Launches that a GPU refuses.
#include "case.h"

namespace {

__global__ void nothing_kernel() {}

bool starts(const Grid& grid) {
  launch("nothing_kernel", nothing_kernel, grid, kStream);
  return true;
}

bool many_rows(int fault) { return starts({dim3(1, fault ? 65536 : 2), 1}); }
bool many_threads(int fault) { return starts({1, fault ? 1025u : 1024u}); }
bool much_shared(int fault) { return starts({1, 1, fault ? size_t{228} << 10 : size_t{227} << 10}); }
bool no_threads(int fault) { return starts({1, fault ? 0u : 1u}); }

__global__ void asked_kernel() {}

// More than 48 KiB must be asked for. `launch` asks, so that this goes past it.
bool shared_not_asked_for(int fault) {
  const int bytes = (48 << 10) + 4;
  if (!fault) cudaFuncSetAttribute(asked_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  fcnkern::cuda::check(cuemu::launch(asked_kernel, 1, 1, bytes), "asked_kernel");
  return true;
}

__global__ void with_static_kernel() {
  FCNKERN_SHARED(float, few, [4]);
  few[threadIdx.x] = 0;
}

// Static memory counts too, which an emulator sees only where it is used.
bool shared_with_static(int fault) {
  fcnkern::cuda::check(cuemu::launch(with_static_kernel, 1, 1, (48 << 10) - (fault ? 8 : 16)), "with_static_kernel");
  return true;
}

}  // namespace

const std::vector<Case> kLimitCases = {
    {"many_rows", many_rows},
    {"many_threads", many_threads},
    {"much_shared", much_shared},
    {"no_threads", no_threads},
    {"shared_not_asked_for", shared_not_asked_for},
    {"shared_with_static", shared_with_static},
};
