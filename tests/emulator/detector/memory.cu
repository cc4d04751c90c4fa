// Accesses outside of an object, misaligned, or of what was never written.
#include "case.h"

namespace {

__global__ void shared_index_kernel(float* out, int fault) {
  FCNKERN_SHARED(float, tile, [32]);
  tile[threadIdx.x] = float(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = tile[31 - threadIdx.x + fault];
}

bool shared_index(int fault) {
  std::vector<float> out(32);
  launch("shared_index_kernel", shared_index_kernel, {1, 32}, kStream, out.data(), fault);
  return out[0] == 31 && out[31] == 0;
}

__global__ void dynamic_index_kernel(float* out, int fault) {
  FCNKERN_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + fault] = float(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + fault];
}

bool dynamic_index(int fault) {
  std::vector<float> out(32);
  launch("dynamic_index_kernel", dynamic_index_kernel, {1, 32, 128}, kStream, out.data(), fault);
  return out == counting(32);
}

// The fault stays inside of the whole array: it hits the next row.
__global__ void inner_index_kernel(float* out, int fault) {
  FCNKERN_SHARED(float, tile, [8][33]);
  tile[threadIdx.x][32 + fault] = float(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x][32 + fault];
}

bool inner_index(int fault) {
  std::vector<float> out(7);
  launch("inner_index_kernel", inner_index_kernel, {1, 7}, kStream, out.data(), fault);
  return out == counting(7);
}

__global__ void global_index_kernel(const float* in, float* out, int count, int fault) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count + fault) out[i < count ? i : 0] = in[i];
}

bool global_index(int fault) {
  std::vector<float> in = counting(50), out(50);
  in.shrink_to_fit();
  launch("global_index_kernel", global_index_kernel, {2, 32}, kStream, in.data(), out.data(), 50, fault);
  return out == in;
}

__global__ void local_array_kernel(float* out, int fault) {
  float sums[4] = {};
  for (int i = 0; i < 4 + fault; ++i) sums[i] += float(threadIdx.x);
  out[threadIdx.x] = sums[0] + sums[3];
}

bool local_array(int fault) {
  std::vector<float> out(2);
  launch("local_array_kernel", local_array_kernel, {1, 2}, kStream, out.data(), fault);
  return out[1] == 2;
}

__global__ void misaligned_kernel(const float* in, float* out, int fault) {
  const auto* vectors = reinterpret_cast<const float4*>(in + fault);
  out[threadIdx.x] = vectors[threadIdx.x].x - float(fault);
}

__global__ void misaligned_hinted_kernel(const float* in, float* out, int fault) {
  const auto* vectors = reinterpret_cast<const float4*>(in + fault);
  out[threadIdx.x] = __ldg(vectors + threadIdx.x).x - float(fault);
}

template <class Kernel>
bool misaligned_by(const char* name, Kernel* kernel, int fault) {
  alignas(16) float in[64];
  std::vector<float> out(8);
  for (int i = 0; i < 64; ++i) in[i] = float(i);
  launch(name, kernel, {1, 8}, kStream, in, out.data(), fault);
  return out[7] == 28;
}

bool misaligned(int fault) { return misaligned_by("misaligned_kernel", misaligned_kernel, fault); }

bool misaligned_hinted(int fault) {
  return misaligned_by("misaligned_hinted_kernel", misaligned_hinted_kernel, fault);
}

__global__ void int_overflow_kernel(const float* in, float* out, int side) {
  const int offset = side * side * 64;
  out[0] = offset == 64 ? in[0] : 0;
}

bool int_overflow(int fault) {
  float in = 7, out = 0;
  launch("int_overflow_kernel", int_overflow_kernel, {1, 1}, kStream, &in, &out, fault ? 1 << 14 : 1);
  return fault || out == 7;
}

__global__ void unwritten_shared_kernel(float* out, int fault) {
  FCNKERN_SHARED(float, tile, [64]);
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + fault];
}

bool unwritten_shared(int fault) {
  std::vector<float> out(32);
  launch("unwritten_shared_kernel", unwritten_shared_kernel, {1, 32}, kStream, out.data(), fault);
  return out == std::vector<float>(32, 1.f);
}

}  // namespace

const std::vector<Case> kMemoryCases = {
    {"shared_index", shared_index},   {"dynamic_index", dynamic_index},
    {"inner_index", inner_index},     {"global_index", global_index},
    {"local_array", local_array},     {"misaligned", misaligned},
    {"int_overflow", int_overflow},   {"misaligned_hinted", misaligned_hinted},
    {"unwritten_shared", unwritten_shared},
};
