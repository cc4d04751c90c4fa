// fcnkern._C: the CPU kernels for Python. Tensors arrive as addresses, sizes and strides (in elements).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/philox.h"
#include "dtypes.h"
#include "isa.h"

#ifdef _OPENMP
#define FCNKERN_OPENMP true
#else
#define FCNKERN_OPENMP false
#endif

namespace py = pybind11;

namespace fcnkern {
namespace {

const char* const kIsaNames[] = {"generic", "avx2", "avx512"};

Isa best_isa() {
#ifdef FCNKERN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kGeneric;
}

std::vector<std::string> runnable_isas() {
  return {kIsaNames, kIsaNames + static_cast<int>(best_isa()) + 1};
}

Isa chosen_isa() {
  const char* named = std::getenv("FCNKERN_ISA");
  if (named == nullptr || *named == '\0') return best_isa();
  for (int level = 0; level <= static_cast<int>(best_isa()); ++level)
    if (kIsaNames[level] == std::string(named)) return static_cast<Isa>(level);
  std::string known;
  for (const std::string& name : runnable_isas()) known += (known.empty() ? "" : ", ") + name;
  throw py::import_error("FCNKERN_ISA=" + std::string(named) + ": this machine and build run " + known);
}

Isa g_isa = Isa::kGeneric;

py::dict build_info() {
  py::dict info;
  info["version"] = FCNKERN_VERSION;
  info["compiler"] = __VERSION__;
  info["openmp"] = FCNKERN_OPENMP;
  info["isa"] = kIsaNames[static_cast<int>(g_isa)];
  info["isas"] = runnable_isas();
  return info;
}

std::array<uint32_t, 4> philox(uint64_t key, std::array<uint32_t, 4> counter) {
  const PhiloxBlock block = philox4x32(key, {{counter[0], counter[1], counter[2], counter[3]}});
  return {block.word[0], block.word[1], block.word[2], block.word[3]};
}

}  // namespace

Isa active_isa() { return g_isa; }

bool g_poison_scratch = false;

}  // namespace fcnkern

PYBIND11_MODULE(_C, m) {
  m.doc() = "CPU kernels of fcnkern; called through fcnkern.backends.cpu.";
  fcnkern::g_isa = fcnkern::chosen_isa();
  m.def("build_info", &fcnkern::build_info, "Version, compiler, OpenMP and instruction-set levels.");
  m.def("philox4x32", &fcnkern::philox, "Philox4x32-10 of a 64-bit key and four counter words.");
  m.def("poison_scratch", [](bool on) { fcnkern::g_poison_scratch = on; }, "Fill scratch memory with NaN (tests).");
}
