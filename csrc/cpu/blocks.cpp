#include "blocks.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

FCNKERN_INLINE uint32_t float_to_bits(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  return word;
}

// Conversions of an accumulated value to its stored type, to nearest even. Branch-free, so that loops vectorise.
template <class S>
struct Stored {
  template <class T>
  static S from(T value) {
    return static_cast<S>(value);
  }
};
template <>
struct Stored<BFloat16> {
  static BFloat16 from(float value) {
    const uint32_t word = float_to_bits(value);
    const uint32_t rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    return {static_cast<uint16_t>((word & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
  }
};
template <>
struct Stored<Float16> {
  static Float16 from(float value) {
    const uint32_t word = float_to_bits(value);
    const uint32_t sign = (word >> 16) & 0x8000u, magnitude = word & 0x7fffffffu;
    const uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;  // exponent - 112, rounded
    const uint32_t small = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;  // the adder rounds
    const uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t finite = magnitude < 0x38800000u ? small : normal;
    return {static_cast<uint16_t>(sign | (magnitude >= 0x47800000u ? large : finite))};
  }
};

// Rows of consecutive elements.
template <class S, class T>
void load_rows(const S* source, int64_t row_stride, int rows, int columns, T* target, int64_t target_stride,
               int64_t ahead) {
  constexpr int kLine = 64 / sizeof(S);
  for (int r = 0; r < rows; ++r) {
    const S* from = source + r * row_stride;
    T* to = target + r * target_stride;
    if (ahead != 0)
      for (int c = 0; c < columns + kLine - 1; c += kLine) __builtin_prefetch(from + ahead + c, 0, 2);
    for (int c = 0; c < columns; ++c) to[c] = static_cast<T>(from[c]);
  }
}

// Columns of consecutive elements, transposed by squares of four.
template <class S, class T>
void load_columns(const S* source, int64_t column_stride, int rows, int columns, T* target, int64_t target_stride,
                  int64_t ahead) {
  typedef T Four __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
  constexpr int kLine = 64 / sizeof(S);
  int c = 0;
  for (; c + 4 <= columns; c += 4) {
    const S* from = source + c * column_stride;
    for (int r = 0; ahead != 0 && r < rows + kLine - 1; r += kLine)
      for (int i = 0; i < 4; ++i) __builtin_prefetch(from + i * column_stride + ahead + r, 0, 2);
    for (int r = 0; r < rows; ++r) {
      const Four quad = {static_cast<T>(from[r]), static_cast<T>(from[column_stride + r]),
                         static_cast<T>(from[2 * column_stride + r]), static_cast<T>(from[3 * column_stride + r])};
      *reinterpret_cast<Four*>(target + r * target_stride + c) = quad;
    }
  }
  for (; c < columns; ++c)
    for (int r = 0; r < rows; ++r) target[r * target_stride + c] = static_cast<T>(source[c * column_stride + r]);
}

template <class S, class T>
void load_typed(const S* source, int64_t row_stride, int64_t column_stride, int rows, int columns, T* target,
                int64_t target_stride, int64_t ahead) {
  if (column_stride == 1) return load_rows(source, row_stride, rows, columns, target, target_stride, ahead);
  if (row_stride == 1) return load_columns(source, column_stride, rows, columns, target, target_stride, ahead);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c)
      target[r * target_stride + c] = static_cast<T>(source[r * row_stride + c * column_stride]);
}

template <class S, class T>
void store_typed(S* target, int64_t row_stride, int64_t column_stride, int64_t rows, int64_t columns, const T* source,
                 int64_t source_stride) {
  if (column_stride == 1) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) target[r * row_stride + c] = Stored<S>::from(source[r * source_stride + c]);
    return;
  }
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r)
      target[r * row_stride + c * column_stride] = Stored<S>::from(source[r * source_stride + c]);
}

}  // namespace

template <>
void load_block<float>(DType dtype, const void* data, int64_t offset, int64_t row_stride, int64_t column_stride,
                       int rows, int columns, float* target, int64_t target_stride, int64_t ahead) {
  const auto load = [&](auto* source) {
    load_typed(source + offset, row_stride, column_stride, rows, columns, target, target_stride, ahead);
  };
  if (dtype == DType::kF32) load(static_cast<const float*>(data));
  if (dtype == DType::kBF16) load(static_cast<const BFloat16*>(data));
  if (dtype == DType::kF16) load(static_cast<const Float16*>(data));
}

template <>
void load_block<double>(DType, const void* data, int64_t offset, int64_t row_stride, int64_t column_stride, int rows,
                        int columns, double* target, int64_t target_stride, int64_t ahead) {
  load_typed(static_cast<const double*>(data) + offset, row_stride, column_stride, rows, columns, target,
             target_stride, ahead);
}

template <>
void store_block<float>(DType dtype, void* data, int64_t offset, int64_t row_stride, int64_t column_stride,
                        int64_t rows, int64_t columns, const float* source, int64_t source_stride) {
  const auto store = [&](auto* target) {
    store_typed(target + offset, row_stride, column_stride, rows, columns, source, source_stride);
  };
  if (dtype == DType::kF32) store(static_cast<float*>(data));
  if (dtype == DType::kBF16) store(static_cast<BFloat16*>(data));
  if (dtype == DType::kF16) store(static_cast<Float16*>(data));
}

template <>
void store_block<double>(DType, void* data, int64_t offset, int64_t row_stride, int64_t column_stride, int64_t rows,
                         int64_t columns, const double* source, int64_t source_stride) {
  store_typed(static_cast<double*>(data) + offset, row_stride, column_stride, rows, columns, source, source_stride);
}

}  // namespace fcnkern::FCNKERN_ISA
