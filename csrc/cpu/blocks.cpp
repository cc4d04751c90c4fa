#include "blocks.h"

#include <type_traits>

#include "four.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

FCNKERN_INLINE uint32_t float_to_bits(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  return word;
}

// Conversions of an accumulated value to its stored type, to nearest even. Branch-free, so that loops
// vectorise.
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
    const uint32_t normal =
        (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;  // exponent - 112, rounded
    const uint32_t small = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;  // the adder rounds
    const uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t finite = magnitude < 0x38800000u ? small : normal;
    return {static_cast<uint16_t>(sign | (magnitude >= 0x47800000u ? large : finite))};
  }
};

template <class S, class T>
FCNKERN_INLINE void load_lanes(const S* __restrict from, T* __restrict to) {
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<T>(from[i]);
}

template <class S, class T>
FCNKERN_INLINE typename FourOf<T>::Type load_four(const S* from) {
  if constexpr (std::is_same<S, T>::value) {
    return *reinterpret_cast<const typename FourOf<T>::Type*>(from);
  } else {
    return typename FourOf<T>::Type{static_cast<T>(from[0]), static_cast<T>(from[1]), static_cast<T>(from[2]),
                                    static_cast<T>(from[3])};
  }
}

// Rows of consecutive elements. The last vector of a row overlaps the one before.
template <class S, class T>
void load_rows(const S* source, int64_t row_stride, int rows, int columns, T* target, int64_t target_stride) {
  for (int r = 0; r < rows; ++r, source += row_stride, target += target_stride) {
    if (columns < kLanes) {
      int c = 0;
      for (; c + 4 <= columns; c += 4)
        *reinterpret_cast<typename FourOf<T>::Type*>(target + c) = load_four<S, T>(source + c);
      for (; c < columns; ++c) target[c] = static_cast<T>(source[c]);
      continue;
    }
    for (int c = 0; c + kLanes < columns; c += kLanes) load_lanes(source + c, target + c);
    load_lanes(source + columns - kLanes, target + columns - kLanes);
  }
}

// Columns of consecutive elements, transposed by squares of four. The last four columns overlap those before.
template <class S, class T>
void load_columns(const S* source, int64_t column_stride, int rows, int columns, T* target,
                  int64_t target_stride) {
  using Four = typename FourOf<T>::Type;
  for (int first = 0; columns >= 4 && first < columns; first += 4) {
    const int c = first + 4 <= columns ? first : columns - 4;
    const S* from = source + c * column_stride;
    T* to = target + c;
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
      Four square[4];
      for (int i = 0; i < 4; ++i) square[i] = load_four<S, T>(from + i * column_stride + r);
      transpose(square);
      for (int i = 0; i < 4; ++i) *reinterpret_cast<Four*>(to + (r + i) * target_stride) = square[i];
    }
    for (; r < rows; ++r)
      for (int i = 0; i < 4; ++i) to[r * target_stride + i] = static_cast<T>(from[i * column_stride + r]);
  }
  for (int c = 0; columns < 4 && c < columns; ++c)
    for (int r = 0; r < rows; ++r)
      target[r * target_stride + c] = static_cast<T>(source[c * column_stride + r]);
}

template <class S, class T>
void load_typed(const S* source, int64_t row_stride, int64_t column_stride, int rows, int columns, T* target,
                int64_t target_stride) {
  if (column_stride == 1) return load_rows(source, row_stride, rows, columns, target, target_stride);
  if (row_stride == 1) return load_columns(source, column_stride, rows, columns, target, target_stride);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c)
      target[r * target_stride + c] = static_cast<T>(source[r * row_stride + c * column_stride]);
}

// Columns of consecutive elements, transposed by squares of four; a line of each row of `source` at a time.
template <class S, class T>
void store_columns(S* target, int64_t column_stride, int64_t rows, int64_t columns, const T* source,
                   int64_t source_stride) {
  using Four = typename FourOf<T>::Type;
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t line = 0; line < whole_columns; line += kLine) {
    const int64_t end = line + kLine < whole_columns ? line + kLine : whole_columns;
    for (int64_t r = 0; r < whole_rows; r += 4)
      for (int64_t c = line; c < end; c += 4) {
        Four square[4];
        for (int i = 0; i < 4; ++i)
          square[i] = *reinterpret_cast<const Four*>(source + (r + i) * source_stride + c);
        transpose(square);
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j) target[(c + i) * column_stride + r + j] = Stored<S>::from(square[i][j]);
      }
  }
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; ++r)
      target[c * column_stride + r] = Stored<S>::from(source[r * source_stride + c]);
}

// Rows of consecutive elements. Lines that will be written are fetched some rows ahead.
template <class S, class T>
void store_rows(S* target, int64_t row_stride, int64_t rows, int64_t columns, const T* source,
                int64_t source_stride) {
  constexpr int64_t kRowsAhead = 4, kLine = 64 / sizeof(S);
  for (int64_t r = 0; r < rows; ++r, target += row_stride, source += source_stride) {
    if (r + kRowsAhead < rows)
      for (int64_t c = 0; c < columns; c += kLine)
        __builtin_prefetch(target + kRowsAhead * row_stride + c, 1);
    for (int64_t c = 0; c < columns; ++c) target[c] = Stored<S>::from(source[c]);
  }
}

template <class S, class T>
void store_typed(S* target, int64_t row_stride, int64_t column_stride, int64_t rows, int64_t columns,
                 const T* source, int64_t source_stride) {
  if (column_stride == 1) return store_rows(target, row_stride, rows, columns, source, source_stride);
  if (row_stride == 1)
    return store_columns(target, column_stride, rows, columns, source, source_stride);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r)
      target[r * row_stride + c * column_stride] = Stored<S>::from(source[r * source_stride + c]);
}

}  // namespace

template <>
void load_block<float>(DType dtype, const void* data, int64_t offset, int64_t row_stride,
                       int64_t column_stride, int rows, int columns, float* target, int64_t target_stride) {
  const auto load = [&](auto* source) {
    load_typed(source + offset, row_stride, column_stride, rows, columns, target, target_stride);
  };
  if (dtype == DType::kF32) load(static_cast<const float*>(data));
  if (dtype == DType::kBF16) load(static_cast<const BFloat16*>(data));
  if (dtype == DType::kF16) load(static_cast<const Float16*>(data));
}

template <>
void load_block<double>(DType, const void* data, int64_t offset, int64_t row_stride, int64_t column_stride,
                        int rows, int columns, double* target, int64_t target_stride) {
  load_typed(static_cast<const double*>(data) + offset, row_stride, column_stride, rows, columns, target,
             target_stride);
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
void store_block<double>(DType, void* data, int64_t offset, int64_t row_stride, int64_t column_stride,
                         int64_t rows, int64_t columns, const double* source, int64_t source_stride) {
  store_typed(static_cast<double*>(data) + offset, row_stride, column_stride, rows, columns, source,
              source_stride);
}

}  // namespace fcnkern::FCNKERN_ISA
