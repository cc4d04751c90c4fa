// Instruction-set levels. Each file of csrc/cpu is compiled once per level into its own namespace,
// fcnkern::generic, fcnkern::avx2 and fcnkern::avx512; one of them is in force while the program runs.
// FCNKERN_WITH_AVX2 and FCNKERN_WITH_AVX512 are defined where the build holds that level.
#pragma once

namespace fcnkern {

enum class Isa : int { kGeneric = 0, kAvx2 = 1, kAvx512 = 2 };

// The level in force: the best that this build holds and this processor runs, unless another was asked for.
Isa active_isa();

}  // namespace fcnkern

#ifdef FCNKERN_WITH_AVX2
#define FCNKERN_DECLARE_AVX2(RET, FN, ...) \
  namespace fcnkern::avx2 { RET FN(__VA_ARGS__); }
#define FCNKERN_TRY_AVX2(FN, ...) \
  ::fcnkern::active_isa() == ::fcnkern::Isa::kAvx2 ? ::fcnkern::avx2::FN(__VA_ARGS__):
#else
#define FCNKERN_DECLARE_AVX2(RET, FN, ...)
#define FCNKERN_TRY_AVX2(FN, ...)
#endif

#ifdef FCNKERN_WITH_AVX512
#define FCNKERN_DECLARE_AVX512(RET, FN, ...) \
  namespace fcnkern::avx512 { RET FN(__VA_ARGS__); }
#define FCNKERN_TRY_AVX512(FN, ...) \
  ::fcnkern::active_isa() == ::fcnkern::Isa::kAvx512 ? ::fcnkern::avx512::FN(__VA_ARGS__):
#else
#define FCNKERN_DECLARE_AVX512(RET, FN, ...)
#define FCNKERN_TRY_AVX512(FN, ...)
#endif

// Declares RET FN(ARGS...) in the namespace of every level.
#define FCNKERN_DECLARE(RET, FN, ...)                 \
  namespace fcnkern::generic { RET FN(__VA_ARGS__); } \
  FCNKERN_DECLARE_AVX2(RET, FN, __VA_ARGS__)          \
  FCNKERN_DECLARE_AVX512(RET, FN, __VA_ARGS__)

// Calls FN of the level in force.
#define FCNKERN_CALL(FN, ...) \
  (FCNKERN_TRY_AVX512(FN, __VA_ARGS__) FCNKERN_TRY_AVX2(FN, __VA_ARGS__)::fcnkern::generic::FN(__VA_ARGS__))
