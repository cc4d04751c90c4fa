// Instruction-set levels. Each file of csrc/cpu is compiled once per level into its own namespace,
// fcnkern::generic, fcnkern::avx2 and fcnkern::avx512; the bindings pick one at import.
#pragma once

namespace fcnkern {

enum class Isa : int { kGeneric = 0, kAvx2 = 1, kAvx512 = 2 };

// The best level that this processor runs and this build holds, or the one FCNKERN_ISA names.
Isa active_isa();

}  // namespace fcnkern

#ifdef FCNKERN_X86
// Declares RET FN(ARGS...) in the namespace of every level.
#define FCNKERN_DECLARE(RET, FN, ...)                                 \
  namespace fcnkern::generic { RET FN(__VA_ARGS__); }                 \
  namespace fcnkern::avx2 { RET FN(__VA_ARGS__); }                    \
  namespace fcnkern::avx512 { RET FN(__VA_ARGS__); }
// Calls FN of the active level.
#define FCNKERN_CALL(FN, ...)                                                           \
  (::fcnkern::active_isa() == ::fcnkern::Isa::kAvx512 ? ::fcnkern::avx512::FN(__VA_ARGS__) \
   : ::fcnkern::active_isa() == ::fcnkern::Isa::kAvx2 ? ::fcnkern::avx2::FN(__VA_ARGS__)   \
                                                      : ::fcnkern::generic::FN(__VA_ARGS__))
#else
#define FCNKERN_DECLARE(RET, FN, ...) \
  namespace fcnkern::generic { RET FN(__VA_ARGS__); }
#define FCNKERN_CALL(FN, ...) ::fcnkern::generic::FN(__VA_ARGS__)
#endif
