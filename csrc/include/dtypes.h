// Codes by which Python names element types.
#pragma once

namespace fcnkern {

enum class DType : int { kF32 = 0, kF64 = 1, kBF16 = 2, kF16 = 3 };
enum class LabelType : int { kU8 = 0, kI16 = 1, kI32 = 2, kI64 = 3 };

}  // namespace fcnkern
