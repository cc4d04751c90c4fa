// fcnkern._C_cuda: the CUDA kernels for Python. Each operation binds its own launchers, in csrc/cuda/<op>_bindings.h;
// they are one source, since Python's headers take longer to compile than all that is bound.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cuda/confusion_matrix_bindings.h"
#include "cuda/conv1x1_bindings.h"
#include "cuda/device.h"
#include "cuda/max_pool2d_bindings.h"
#include "cuda/upsample_add_bindings.h"
#include "cuda/upsample_argmax_bindings.h"
#include "cuda/upsample_cross_entropy_bindings.h"

namespace py = pybind11;

namespace fcnkern::cuda {
namespace {

#ifdef FCNKERN_EMULATED
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

py::dict build_info() {
  py::dict info;
  info["version"] = FCNKERN_VERSION;
  info["compiler"] = FCNKERN_CUDA_COMPILER;
  info["archs"] = FCNKERN_CUDA_ARCHS;
  info["emulated"] = kEmulated;
  return info;
}

}  // namespace
}  // namespace fcnkern::cuda

PYBIND11_MODULE(_C_cuda, m) {
  using namespace fcnkern::cuda;
  m.doc() = "CUDA kernels of fcnkern; called through fcnkern.backends.cuda.";
  m.def("build_info", &build_info, "Version, compiler, architectures; whether the kernels run on the host, for tests.");
  m.def("device_count", &device_count, "Number of CUDA devices and, where there are none, the reason.");
  m.def("device_refusal", &device_refusal, py::arg("device"),
        "Why the kernels of this build cannot run on a device, or None.");
  bind_confusion_matrix(m);
  bind_conv1x1(m);
  bind_max_pool2d(m);
  bind_upsample_add(m);
  bind_upsample_argmax(m);
  bind_upsample_cross_entropy(m);
}
