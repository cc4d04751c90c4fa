// Working memory of one call: 64-byte aligned, not initialised, freed with its owner.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

#include "simd.h"

namespace fcnkern {
// Tests set it to have all scratch memory filled with NaN bytes.
extern bool g_poison_scratch;
}  // namespace fcnkern

namespace fcnkern::FCNKERN_ISA {

// Hands out aligned pieces of a block; with a null block it only measures.
class Carver {
 public:
  explicit Carver(char* block = nullptr) : block_(block) {}

  template <class T>
  T* take(size_t count) {
    T* piece = block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  size_t used() const { return used_; }

 private:
  char* block_;
  size_t used_ = 0;
};

// Throws std::bad_alloc: allocate outside OpenMP regions.
class Scratch {
 public:
  explicit Scratch(size_t bytes) {
    if (posix_memalign(&block_, 64, bytes > 0 ? bytes : 64) != 0) throw std::bad_alloc();
    if (g_poison_scratch) std::memset(block_, 0xff, bytes);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(block_); }

  char* data() const { return static_cast<char*>(block_); }

 private:
  void* block_ = nullptr;
};

}  // namespace fcnkern::FCNKERN_ISA
