#include "max_pool2d.h"

#include <cmath>
#include <limits>

#include "elements.cuh"

namespace fcnkern::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kNumbers = 4;  // of a line, a block's width apart, that a thread takes one after the other

// The line of a thread: of windows, or of cells of as many elements as windows are apart.
struct Line {
  int64_t plane;
  int y;
  unsigned first, end;  // numbers of it
};

__device__ __forceinline__ Line line_of(int64_t planes, int height, unsigned length) {
  const unsigned line = blockIdx.x * blockDim.y + threadIdx.y, plane = line / height;
  const unsigned first = blockIdx.y * blockDim.x * kNumbers + threadIdx.x;
  const unsigned end = plane < planes ? min(length, first + blockDim.x * kNumbers) : 0;
  return {plane, static_cast<int>(line - plane * height), first, end};
}

__device__ __forceinline__ bool is_in(int index, int size) {
  return static_cast<unsigned>(index) < static_cast<unsigned>(size);
}

// Reads each element once for each window that it is in, from the caches but for the first time; writes each output
// and a byte for each winner. Bound by memory: of 2x2 windows in fp32, 16 bytes in and 5 out. kSide: windows are
// square and so large; 0: of any size. kDeep: pixels have more numbers than one.
template <class T, int kSide, bool kDeep>
__global__ void __launch_bounds__(kThreads, 4)
    max_pool2d_fwd_kernel(const PoolShape s, const bool relu, const T* __restrict__ x, T* __restrict__ y,
                          uint8_t* __restrict__ winners) {
  const int depth = kDeep ? s.depth : 1;
  const Line line = line_of(s.planes, s.out_height, static_cast<unsigned>(s.out_width) * depth);
  const int kernel_y = kSide > 0 ? kSide : s.kernel_y, kernel_x = kSide > 0 ? kSide : s.kernel_x;
  const int top = line.y * s.stride_y - s.pad_y;
  const T* const rows = x + (line.plane * s.height + top) * s.width * depth;
  const int64_t target = (line.plane * s.out_height + line.y) * s.out_width * depth;
  for (unsigned number = line.first; number < line.end; number += blockDim.x) {
    const int column_of = static_cast<int>(kDeep ? number / depth : number), left = column_of * s.stride_x - s.pad_x;
    const T* const corner = rows + static_cast<int64_t>(left) * depth + (kDeep ? number - column_of * depth : 0);
    float best = -INFINITY;
    int winner = max(-top, 0) * kernel_x + max(-left, 0);
#pragma unroll kSide > 0 ? kSide : 1
    for (int row = 0; row < kernel_y; ++row) {
#pragma unroll kSide > 0 ? kSide : 1
      for (int column = 0; column < kernel_x; ++column) {
        const bool inside = is_in(top + row, s.height) && is_in(left + column, s.width);
        const int64_t place = (static_cast<int64_t>(row) * s.width + column) * depth;
        const float value = inside ? to_float(corner[place]) : -INFINITY;
        const bool wins = value > best || value != value;
        best = wins ? value : best;
        winner = wins ? row * kernel_x + column : winner;
      }
    }
    const bool closed = relu && best <= 0;
    if (winners != nullptr) winners[target + number] = static_cast<uint8_t>(closed ? kNoWinner : winner);
    y[target + number] = from_float<T>(closed ? 0.0f : best);
  }
}

// What a window gives, and to which of its elements.
struct Gift {
  float grad;
  int winner;
};

// The windows around a cell: the first stride_y x stride_x elements of a window, which are in the same windows.
template <class T>
struct Windows {
  const T* grad;
  const uint8_t* winners;
  int64_t source;  // of the window that begins with the cell
  int y, x, height, width, depth;

  // The window that begins `up` and `left` cells before.
  __device__ __forceinline__ Gift at(int up, int left) const {
    if (!is_in(y - up, height) || !is_in(x - left, width)) return {0, kNoWinner};
    const int64_t place = source - (static_cast<int64_t>(up) * width + left) * depth;
    return {to_float(grad[place]), winners[place]};
  }
};

// The windows of kSide x kSide elements that reach into a cell, each read once.
template <class T, int kSide, int kStride>
class Kept {
 public:
  __device__ __forceinline__ explicit Kept(const Windows<T>& windows) {
#pragma unroll
    for (int up = 0; up < kReach; ++up)
#pragma unroll
      for (int left = 0; left < kReach; ++left) gifts_[up][left] = windows.at(up, left);
  }

  // The sum for one element of the cell, in the windows' order.
  __device__ __forceinline__ float sum(int down, int right) const {
    float total = 0;
#pragma unroll
    for (int up = kReach - 1; up >= 0; --up)
#pragma unroll
      for (int left = kReach - 1; left >= 0; --left) {
        const int row = down + up * kStride, column = right + left * kStride;
        const bool won = gifts_[up][left].winner == row * kSide + column && row < kSide && column < kSide;
        total += won ? gifts_[up][left].grad : 0.0f;
      }
    return total;
  }

 private:
  static constexpr int kReach = (kSide + kStride - 1) / kStride;
  Gift gifts_[kReach][kReach];
};

// The same for windows of any size, read again for each element.
template <class T>
__device__ float sum_of(const PoolShape& s, const Windows<T>& windows, int down, int right) {
  float total = 0;
#pragma unroll 1
  for (int up = (s.kernel_y - 1 - down) / s.stride_y; up >= 0; --up)
#pragma unroll 1
    for (int left = (s.kernel_x - 1 - right) / s.stride_x; left >= 0; --left) {
      const Gift gift = windows.at(up, left);
      if (gift.winner == (down + up * s.stride_y) * s.kernel_x + right + left * s.stride_x) total += gift.grad;
    }
  return down < s.kernel_y && right < s.kernel_x ? total : 0;
}

// Reads gradients and winners once for each cell that a window reaches into, from the caches but for the first time;
// writes every element, its sum in fp32. Bound by memory: of 2x2 windows in fp32, 5 bytes in and 16 out. kSide,
// kStride: of square windows; 0: any.
template <class T, int kSide, int kStride, bool kDeep>
__global__ void __launch_bounds__(kThreads, 4)
    max_pool2d_bwd_kernel(const PoolShape s, const int cells_y, const int cells_x, const T* __restrict__ grad,
                          const uint8_t* __restrict__ winners, T* __restrict__ grad_x) {
  const int depth = kDeep ? s.depth : 1;
  const Line line = line_of(s.planes, cells_y, static_cast<unsigned>(cells_x) * depth);
  const int stride_y = kSide > 0 ? kStride : s.stride_y, stride_x = kSide > 0 ? kStride : s.stride_x;
  const int top = line.y * stride_y - s.pad_y;
  const int64_t source = (line.plane * s.out_height + line.y) * s.out_width * depth;
  T* const rows = grad_x + (line.plane * s.height + top) * s.width * depth;
  for (unsigned number = line.first; number < line.end; number += blockDim.x) {
    const int x = static_cast<int>(kDeep ? number / depth : number), left = x * stride_x - s.pad_x;
    const Windows<T> windows{grad, winners, source + number, line.y, x, s.out_height, s.out_width, depth};
    T* const corner = rows + static_cast<int64_t>(left) * depth + (kDeep ? number - x * depth : 0);
    const auto store = [&](int down, int right, float sum) {
      if (is_in(top + down, s.height) && is_in(left + right, s.width))
        corner[(static_cast<int64_t>(down) * s.width + right) * depth] = from_float<T>(sum);
    };
    if constexpr (kSide > 0) {
      const Kept<T, kSide, kStride> kept(windows);
#pragma unroll
      for (int down = 0; down < kStride; ++down)
#pragma unroll
        for (int right = 0; right < kStride; ++right) store(down, right, kept.sum(down, right));
    } else {
#pragma unroll 1
      for (int down = 0; down < stride_y; ++down)
#pragma unroll 1
        for (int right = 0; right < stride_x; ++right) store(down, right, sum_of(s, windows, down, right));
    }
  }
}

// Blocks of neighbouring numbers of a line, and of several short lines.
Grid grid_of(int64_t planes, int height, int width, int depth) {
  const int64_t lines = planes * height, length = static_cast<int64_t>(width) * depth;
  unsigned columns = 1;
  while (columns * kNumbers < length && columns < kWarp) columns *= 2;
  const unsigned rows = kThreads / columns;
  if (lines + rows > std::numeric_limits<unsigned>::max() || length > int64_t{65535} * columns * kNumbers)
    throw std::invalid_argument("fcnkern: max_pool2d of CUDA takes maps of less than 2^32 lines of 2^23 numbers");
  return {{static_cast<unsigned>(ceil_div<int64_t>(lines, rows)),
           static_cast<unsigned>(ceil_div<int64_t>(length, columns * kNumbers))},
          {columns, rows}};
}

bool is_square(const PoolShape& s, int side, int stride) {
  return s.kernel_y == side && s.kernel_x == side && s.stride_y == stride && s.stride_x == stride;
}

template <class T, int kSide>
void forward(const MaxPool2dParams& p, const Stream& stream) {
  const PoolShape& s = p.shape;
  const auto kernel = s.depth > 1 ? max_pool2d_fwd_kernel<T, kSide, true> : max_pool2d_fwd_kernel<T, kSide, false>;
  launch("max_pool2d_fwd", kernel, grid_of(s.planes, s.out_height, s.out_width, s.depth), stream, s, p.relu,
         static_cast<const T*>(p.x), static_cast<T*>(p.y), p.winners);
}

template <class T, int kSide, int kStride>
void backward(const MaxPool2dParams& p, const Stream& stream) {
  const PoolShape& s = p.shape;
  const int cells_y = ceil_div(s.height + s.pad_y, s.stride_y), cells_x = ceil_div(s.width + s.pad_x, s.stride_x);
  const auto kernel = s.depth > 1 ? max_pool2d_bwd_kernel<T, kSide, kStride, true>
                                  : max_pool2d_bwd_kernel<T, kSide, kStride, false>;
  launch("max_pool2d_bwd", kernel, grid_of(s.planes, cells_y, cells_x, s.depth), stream, s, cells_y, cells_x,
         static_cast<const T*>(p.y), static_cast<const uint8_t*>(p.winners), static_cast<T*>(p.x));
}

}  // namespace

void max_pool2d_fwd(const MaxPool2dParams& p, const Stream& stream) {
  const PoolShape& s = p.shape;
  with_element_type(p.type, [&](auto element) {
    using T = decltype(element);
    if (s.kernel_y == 2 && s.kernel_x == 2) return forward<T, 2>(p, stream);
    if (s.kernel_y == 3 && s.kernel_x == 3) return forward<T, 3>(p, stream);
    forward<T, 0>(p, stream);
  });
}

void max_pool2d_bwd(const MaxPool2dParams& p, const Stream& stream) {
  with_element_type(p.type, [&](auto element) {
    using T = decltype(element);
    if (is_square(p.shape, 2, 2)) return backward<T, 2, 2>(p, stream);
    if (is_square(p.shape, 3, 2)) return backward<T, 3, 2>(p, stream);
    if (is_square(p.shape, 3, 1)) return backward<T, 3, 1>(p, stream);
    backward<T, 0, 0>(p, stream);
  });
}

}  // namespace fcnkern::cuda
