// What the wrappers of csrc/cuda/ptx.cuh call instead of PTX: cp.async, ldmatrix and mma.sync.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda_emu_collectives.h"

namespace cuemu {

// What one cp.async moves.
template <int kBytes>
struct Piece {
  uint32_t words[kBytes / 4];
};

// The copies of a thread that are under way. The queue itself is not checked: blocks use it in turn.
struct AsyncCopies {
  static constexpr int kRoom = 256;
  struct Copy {
    void* to;
    Piece<16> data;
    int bytes, group;
  };
  Copy copies[kRoom];
  int count = 0, group = 0;

  template <int kBytes>
  CUEMU_RAW void add(void* to, const Piece<kBytes>& piece) {
    if (count == kRoom) fail("more than %d copies by cp.async under way", kRoom);
    Copy& copy = copies[count++];
    copy.to = to, copy.bytes = kBytes, copy.group = group;
    for (int i = 0; i < kBytes / 4; ++i) copy.data.words[i] = piece.words[i];
  }

  // Hands over the copies of all groups but the newest `left_groups`.
  template <class Deliver>
  CUEMU_RAW void finish(int left_groups, Deliver&& deliver) {
    int left = 0;
    for (int i = 0; i < count; ++i) {
      if (copies[i].group < group - left_groups) deliver(copies[i].to, copies[i].data, copies[i].bytes);
      else copies[left++] = copies[i];
    }
    count = left;
  }
};

CUEMU_RAW inline AsyncCopies& async_copies() {
  static auto* all = new AsyncCopies[kMaxThreads];
  static uint64_t blocks[kMaxThreads];
  const int thread = machine().current->index;
  if (blocks[thread] != machine().block) {
    blocks[thread] = machine().block;
    all[thread].count = all[thread].group = 0;
  }
  return all[thread];
}

// The target holds NaN until the thread waits, so that an absent or too weak wait shows.
template <int kBytes>
void async_copy(void* to, const void* from) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % kBytes)
    fail("misaligned cp.async of %d bytes from %p to %p", kBytes, from, to);
  const auto piece = *static_cast<const Piece<kBytes>*>(from);
  async_copies().add(to, piece);
  memset(to, 0xFF, kBytes);
}

CUEMU_RAW inline void async_commit() { ++async_copies().group; }

// Waits until at most kLeft of the newest groups are under way.
template <int kLeft>
void async_wait() {
  async_copies().finish(kLeft, [](void* to, Piece<16> piece, int bytes) { memcpy(to, &piece, bytes); });
}

// One lane of ldmatrix.x4: it reads a row of eight 16-bit elements, and receives two elements of each matrix.
struct Matrices {
  uint16_t row[8];
  uint32_t* result;
  bool transposed;

  CUEMU_RAW static void exchange(void** slots, unsigned active) {
    if (active != ~0u) fail("ldmatrix needs all 32 lanes");
    for_active<Matrices>(slots, active, [slots](Matrices& mine, int lane) CUEMU_RAW {
      const auto element = [&](int matrix, int row, int column) CUEMU_RAW {
        if (mine.transposed) std::swap(row, column);
        return static_cast<const Matrices*>(slots[matrix * 8 + row])->row[column];
      };
      for (int matrix = 0; matrix < 4; ++matrix) {
        const int row = lane / 4, column = lane % 4 * 2;
        const uint32_t low = element(matrix, row, column), high = element(matrix, row, column + 1);
        mine.result[matrix] = low | high << 16;
      }
    });
  }
};

inline void load_matrices(uint32_t (&result)[4], const void* row, bool transposed, CUEMU_AT) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fail("misaligned ldmatrix at %p", row);
  Matrices slot{{}, result, transposed};
  memcpy(slot.row, row, 16);
  warp_op(~0u, Matrices::exchange, &slot, false, file, line);
}

// One lane's registers of mma.sync.m16n8k16: operands of 16 bits, fp32 accumulators.
template <class T>
struct Product16 {
  const uint32_t *a, *b;
  float* d;

  CUEMU_RAW static float operand(const uint32_t* registers, int i) {
    T value;
    memcpy(&value, reinterpret_cast<const char*>(registers) + 2 * i, sizeof value);
    if constexpr (std::is_same_v<T, __half>) return __half2float(value);
    else return __bfloat162float(value);
  }

  CUEMU_RAW static void multiply(void** slots, unsigned active) {
    if (active != ~0u) fail("mma.sync needs all 32 lanes");
    float a[16][16], b[16][8];
    for_active<Product16>(slots, active, [&](Product16& mine, int lane) CUEMU_RAW {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 8; ++i) a[group + i / 2 % 2 * 8][pair + i % 2 + i / 4 * 8] = operand(mine.a, i);
      for (int i = 0; i < 4; ++i) b[pair + i % 2 + i / 2 * 8][group] = operand(mine.b, i);
    });
    for_active<Product16>(slots, active, [&](Product16& mine, int lane) CUEMU_RAW {
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k) mine.d[i] += a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
    });
  }
};

// d (16x8) += a (16x16, by rows) * b (16x8, by columns), in the layout of registers of the PTX manual.
template <class T>
void product16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], CUEMU_AT) {
  Product16<T> slot{a, b, d};
  warp_op(~0u, Product16<T>::multiply, &slot, false, file, line);
}

}  // namespace cuemu
