// Barriers and collectives that not all threads reach; and what collectives compute.
#include "case.h"

namespace {

__global__ void divergent_barrier_kernel(float* out, int fault) {
  if (fault && threadIdx.x < 16) {
    __syncthreads();
  } else {
    out[threadIdx.x] = 1;
    __syncthreads();
  }
}

__global__ void early_exit_kernel(float* out, int fault) {
  if (fault && threadIdx.x > 20) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

// Half of the warp waits in a shuffle for the other half, which waits for the block.
__global__ void shuffle_in_branch_kernel(float* out, int fault) {
  const unsigned mask = fault ? ~0u : 0xffffu;
  float value = 1;
  if (threadIdx.x < 16) value = __shfl_xor_sync(mask, value, 1);
  __syncthreads();
  out[threadIdx.x] = value;
}

// The second warp has 16 lanes, of which a shuffle over 32 reads more.
__global__ void absent_lane_kernel(float* out, int fault) {
  float value = 1;
  for (int step = fault ? 16 : 8; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  out[threadIdx.x] = value / (fault ? 32 : 16);
}

__global__ void two_collectives_kernel(float* out, int fault) {
  if (fault && threadIdx.x % 2) __syncwarp();
  else out[threadIdx.x] = __shfl_sync(~0u, 1.f, 0);
}

__global__ void deadlock_kernel(float* out, int fault) {
  if (fault && threadIdx.x == 0) __syncthreads();
  __syncwarp();
  out[threadIdx.x] = 1;
}

__global__ void trap_kernel(float* out, int fault) {
  if (fault) __trap();
  out[threadIdx.x] = 1;
}

bool writes_ones(const char* name, void (*kernel)(float*, int), unsigned threads, int fault) {
  std::vector<float> out(threads);
  launch(name, kernel, {1, threads}, kStream, out.data(), fault);
  return out == std::vector<float>(threads, 1.f);
}

#define ONES(NAME, THREADS) \
  {#NAME, [](int fault) { return writes_ones(#NAME "_kernel", NAME##_kernel, THREADS, fault); }}

__global__ void votes_kernel(unsigned* out, int) {
  const unsigned lane = threadIdx.x, thirds = __ballot_sync(~0u, lane % 3 == 0);
  unsigned* mine = out + lane * 12;
  mine[0] = thirds;
  mine[1] = __match_any_sync(~0u, int(lane / 4));
  mine[2] = unsigned(__half2float(__shfl_xor_sync(~0u, __float2half(float(lane)), 1)));
  mine[3] = __shfl_up_sync(~0u, lane, 1, 8);
  mine[4] = __shfl_down_sync(~0u, lane, 2, 16);
  mine[5] = __shfl_sync(~0u, lane, 5, 8);
  mine[6] = unsigned(2 * __shfl_xor_sync(~0u, double(lane) * 1.5, 16));
  mine[7] = __reduce_add_sync(~0u, lane);
  mine[8] = __reduce_max_sync(lane < 8 ? 0xffu : ~0xffu, lane) + 100 * __reduce_min_sync(~0u, lane + 3);
  mine[9] = unsigned(__any_sync(~0u, lane == 3) + 2 * __all_sync(~0u, lane < 31));
  mine[10] = unsigned(__syncthreads_count(lane < 5) + 100 * __syncthreads_or(lane == 9));
  mine[11] = unsigned(__syncthreads_and(lane < 32) + 2 * __popc(thirds));
}

bool votes(int fault) {
  std::vector<unsigned> out(32 * 12);
  launch("votes_kernel", votes_kernel, {1, 32}, kStream, out.data(), fault);
  bool right = true;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned expected[12] = {
        0x49249249u, 0xfu << (lane / 4 * 4), lane ^ 1,          lane % 8 ? lane - 1 : lane,
        lane % 16 < 14 ? lane + 2 : lane,    (lane & ~7u) + 5,  (lane ^ 16) * 3,
        496u,        300u + (lane < 8 ? 7 : 31), 1u,            105u,
        1u + 2 * 11,
    };
    for (int i = 0; i < 12; ++i) right &= out[lane * 12 + i] == expected[i];
  }
  return right;
}

__global__ void atomics_kernel(unsigned* out, float* sum, int) {
  atomicAdd(out, threadIdx.x), atomicSub(out + 1, 1u), atomicMax(out + 2, threadIdx.x);
  atomicMin(out + 3, threadIdx.x + 5), atomicOr(out + 4, 1u << threadIdx.x % 4), atomicAnd(out + 5, ~1u);
  atomicXor(out + 6, threadIdx.x), atomicInc(out + 7, 9u), atomicDec(out + 8, 9u);
  atomicCAS(out + 9, 0u, threadIdx.x + 1), atomicAdd(sum, .5f);
  if (threadIdx.x == 3) atomicExch(out + 10, 77u);
}

bool atomics(int fault) {
  std::vector<unsigned> out(11);
  out[1] = 100, out[3] = 50, out[5] = 7;
  float sum = 0;
  launch("atomics_kernel", atomics_kernel, {1, 64}, kStream, out.data(), &sum, fault);
  const bool once = out[9] >= 1 && out[9] <= 64;  // whichever thread came first
  out[9] = 0;
  return once && sum == 32 && out == std::vector<unsigned>{2016, 36, 63, 5, 15, 6, 0, 4, 6, 0, 77};
}

// a (16x16) times the transpose of b (8x16), both by rows; ldmatrix brings them into the registers.
__global__ void product_kernel(const __nv_bfloat16* a, const __nv_bfloat16* b, float* out, int) {
  FCNKERN_SHARED(__nv_bfloat16, tile, [24][16]);
  const int lane = int(threadIdx.x), group = lane / 4, pair = lane % 4 * 2;
  for (int i = lane; i < 24 * 16; i += 32) tile[i / 16][i % 16] = i < 256 ? a[i] : b[i - 256];
  __syncwarp();
  uint32_t left[4], right[4];
  cuemu::load_matrices(left, &tile[lane % 16][lane / 16 * 8], false);
  cuemu::load_matrices(right, &tile[16 + lane % 8][lane / 8 % 2 * 8], false);
  float sum[4] = {};
  cuemu::product16<__nv_bfloat16>(sum, left, {right[0], right[1]});
  for (int i = 0; i < 4; ++i) out[(group + i / 2 * 8) * 8 + pair + i % 2] = sum[i];
}

bool product(int fault) {
  std::vector<__nv_bfloat16> a(256), b(128);
  std::vector<float> out(128);
  for (int i = 0; i < 256; ++i) a[i] = __float2bfloat16(float(i * 7 % 13 - 6));
  for (int i = 0; i < 128; ++i) b[i] = __float2bfloat16(float(i * 5 % 11 - 5));
  launch("product_kernel", product_kernel, {1, 32}, kStream, a.data(), b.data(), out.data(), fault);
  bool right = true;
  for (int i = 0; i < 128; ++i) {
    float sum = 0;
    for (int k = 0; k < 16; ++k)
      sum += __bfloat162float(a[i / 8 * 16 + k]) * __bfloat162float(b[i % 8 * 16 + k]);
    right &= sum == out[i];
  }
  return right;
}

// Every thread of a grid and a block of three dimensions runs once.
__global__ void positions_kernel(unsigned* counts, int) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  ++counts[block * blockDim.x * blockDim.y * blockDim.z + thread];
}

bool positions(int fault) {
  std::vector<unsigned> counts(2 * 3 * 5 * 4 * 3 * 2);
  const Grid grid{dim3(2, 3, 5), dim3(4, 3, 2)};
  launch("positions_kernel", positions_kernel, grid, kStream, counts.data(), fault);
  return counts == std::vector<unsigned>(counts.size(), 1);
}

}  // namespace

const std::vector<Case> kCollectiveCases = {
    ONES(divergent_barrier, 32), ONES(early_exit, 32), ONES(shuffle_in_branch, 32),
    ONES(absent_lane, 48),       ONES(deadlock, 64),   ONES(two_collectives, 32),
    ONES(trap, 32),              {"votes", votes},     {"atomics", atomics},
    {"product", product},        {"positions", positions},
};
