// The micro-kernels of gemm.h: a block of rows x vectors held in registers while k runs.
#include "gemm.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

// Two lines of memory to fetch per k.
struct Lines {
  const char *first, *second;
  int64_t stride;
};

// Reads depth * (kRows + kVectors registers) numbers, reads and writes kRows * kVectors registers of acc.
template <class T, int kRows, int kVectors>
void multiply_block(int depth, const T* __restrict a, const T* __restrict b, int64_t b_stride,
                    T* __restrict acc, int64_t acc_stride, Lines lines) {
  using V = typename RegisterOf<T>::Type;
  using U = typename RegisterOf<T>::Unaligned;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[m][v] = V{};
  for (int k = 0; k < depth; ++k) {
    __builtin_prefetch(lines.first + k * lines.stride, 0, 2);
    __builtin_prefetch(lines.second + k * lines.stride, 0, 2);
    V column[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      column[v] = *reinterpret_cast<const U*>(b + k * b_stride + v * kRegister<T>);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      const V factor = a[k * kRows + m] - V{};
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[m][v] += factor * column[v];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      *reinterpret_cast<U*>(acc + m * acc_stride + v * kRegister<T>) += sum[m][v];
}

template <class T, int kVectors>
void multiply_rows(int rows, int depth, const T* a, const T* b, int64_t b_stride, T* acc, int64_t acc_stride,
                   Lines lines) {
  switch (rows) {
#define FCNKERN_ROWS(N) \
  case N:               \
    return multiply_block<T, N, kVectors>(depth, a, b, b_stride, acc, acc_stride, lines);
    FCNKERN_ROWS(1)
    FCNKERN_ROWS(2)
    FCNKERN_ROWS(3)
    FCNKERN_ROWS(4)
    FCNKERN_ROWS(5)
    FCNKERN_ROWS(6)
#if defined(__AVX512F__)
    FCNKERN_ROWS(7)
    FCNKERN_ROWS(8)
#endif
#undef FCNKERN_ROWS
  }
}

// The panels of rows share out the lines that lie ahead.
template <class T, int kVectors>
void multiply_strip(int rows, int depth, const T* a, const T* b, int64_t b_stride, T* acc, int64_t acc_stride,
                    Ahead ahead) {
  const int width = panel_rows(rows), panels = (rows + width - 1) / width;
  const char* const near = reinterpret_cast<const char*>(b);
  for (int panel = 0; panel < panels; ++panel) {
    const int m = panel * width;
    const Lines lines = {panel < ahead.lines ? ahead.at + panel * ahead.line_step : near,
                         panel + panels < ahead.lines ? ahead.at + (panel + panels) * ahead.line_step : near,
                         panel < ahead.lines ? ahead.k_stride : 0};
    multiply_rows<T, kVectors>(static_cast<int>(least(width, rows - m)), depth,
                               a + static_cast<int64_t>(m) * depth, b, b_stride, acc + m * acc_stride,
                               acc_stride, lines);
  }
}

}  // namespace

template <class T>
void multiply_panel(int rows, int registers, int depth, const T* a, const T* b, int64_t b_stride, T* acc,
                    int64_t acc_stride, Ahead ahead) {
  const int64_t share = ceil_div(ahead.lines, ceil_div(registers, kTileVectors));  // of each strip
  for (int done = 0, vectors; done < registers; done += vectors) {
    const Ahead own = {ahead.at, ahead.k_stride, ahead.line_step, least(share, ahead.lines)};
    const int left = registers - done;
    const T* columns = b + done * kRegister<T>;
    T* target = acc + done * kRegister<T>;
    vectors = left < kTileVectors ? left : left == 4 ? 2 : kTileVectors;  // 4 = 2 + 2
    switch (vectors) {
      case 1:
        multiply_strip<T, 1>(rows, depth, a, columns, b_stride, target, acc_stride, own);
        break;
      case 2:
        multiply_strip<T, 2>(rows, depth, a, columns, b_stride, target, acc_stride, own);
        break;
      default:
        multiply_strip<T, kTileVectors>(rows, depth, a, columns, b_stride, target, acc_stride, own);
    }
    ahead.at += own.lines * ahead.line_step;
    ahead.lines -= own.lines;
  }
}

template void multiply_panel<float>(int, int, int, const float*, const float*, int64_t, float*, int64_t,
                                    Ahead);
template void multiply_panel<double>(int, int, int, const double*, const double*, int64_t, double*, int64_t,
                                     Ahead);

}  // namespace fcnkern::FCNKERN_ISA
