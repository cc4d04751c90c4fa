// The labels of a cell's pixels: which pixels count, and for each class how many labels lie where.
//
// Pixels in reading order make runs of one class; a run is added up in registers and goes to memory where it ends, so
// that the usual cell, of one class, costs one addition. The sums over the labels of one class and cell (number, rows,
// columns, row * column; rows and columns from 0) are integers below 64, 256, 256 and 1024 that share a 32-bit word;
// 64 labels overflow out of the word, which is then not zero otherwise. With pixel weights the sums are weighted: four
// planes of floats, added to in the order of the pixels. Each lane has words of its own; those before class 0 take what
// does not count and are never read; those after the last class take all pixels that count, for label smoothing.
#pragma once

#include "upsample_cross_entropy_geometric.cuh"
#include "upsample_cross_entropy_pixels.cuh"

namespace fcnkern::cuda {

constexpr uint32_t kNumber = 1u << 26, kRow = 1u << 10, kColumn = 1u << 18;

// The place of a part of a cell in the output.
struct Window {
  int n, y, x, height, width;
};

__device__ __forceinline__ Moments unpack(uint32_t word) {
  const uint32_t number = word >> 26;
  return {static_cast<float>(number == 0 && word != 0 ? 64u : number), static_cast<float>((word >> 10) & 255u),
          static_cast<float>((word >> 18) & 255u), static_cast<float>(word & 1023u)};
}

// One lane's words: (C + 2) x 32 of integers, or four planes of that of floats.
template <bool PLAIN>
class LabelSums {
 public:
  __device__ __forceinline__ LabelSums(uint32_t* words, int classes, int lane, bool weighted)
      : words_(words + kWarp + lane), plane_((classes + 2) * kWarp), weighted_(!PLAIN && weighted) {}

  __device__ __forceinline__ void add_run(int kind, uint32_t run) const { words_[kind * kWarp] += run; }

  __device__ __forceinline__ void add_weight(int kind, float weight, int v, int r) const {
    float* at = reinterpret_cast<float*>(words_) + kind * kWarp;
    at[0] += weight, at[plane_] += weight * v;
    at[2 * plane_] += weight * r, at[3 * plane_] += weight * (v * r);
  }

  __device__ __forceinline__ void next_class() { words_ += kWarp; }

  // Whether a class may have labels here.
  __device__ __forceinline__ bool has(int c) const { return weighted_ || words_[c * kWarp] != 0; }

  __device__ __forceinline__ Moments look(int c) const {
    if (PLAIN || !weighted_) return unpack(words_[c * kWarp]);
    const float* at = reinterpret_cast<const float*>(words_) + c * kWarp;
    return {at[0], at[plane_], at[2 * plane_], at[3 * plane_]};
  }

  // The sums of a class; leaves zeros for the next row of cells.
  __device__ __forceinline__ Moments take(int c) const {
    const Moments found = look(c);
#pragma unroll 1
    for (int k = 0; k < (PLAIN || !weighted_ ? 1 : 4); ++k) words_[c * kWarp + k * plane_] = 0;
    return found;
  }

 private:
  uint32_t* words_;
  int plane_;
  bool weighted_;
};

// What is known of a cell's labels.
struct CellLabels {
  uint64_t kept;  // bit v K + r: pixel (v, r) counts
  bool wrong;     // a label is out of range
};

// Reads the labels of one cell. Eight bytes of a row come at once where they lie so. `factors`, this lane's, 32 apart,
// take what multiplies the logarithm of each pixel that counts; null where that is 1.
template <int K>
__device__ __forceinline__ CellLabels read_labels(const LossPixels& p, const Window& cell, const LabelSums<false>& sums,
                                                  float* factors) {
  CellLabels found{0, false};
  int run_kind = kIgnored;
  uint32_t run = 0, all = 0;
  const bool bytes = p.target.type == LabelType::kU8 && p.target.strides[2] == 1 && cell.width == 8;
  for (int v = 0; v < cell.height; ++v) {
    const int64_t offset = cell.n * p.target.strides[0] + (cell.y + v) * p.target.strides[1] +
                           cell.x * p.target.strides[2];
    const uint8_t* row = static_cast<const uint8_t*>(p.target.data) + offset;
    const bool packed = bytes && reinterpret_cast<uintptr_t>(row) % 4 == 0;
    uint32_t eight[2] = {0, 0};
    if (packed) {
      eight[0] = reinterpret_cast<const uint32_t*>(row)[0];
      eight[1] = reinterpret_cast<const uint32_t*>(row)[1];
    }
    SamplingWalk walk(p, cell.n, cell.y + v, cell.x);
    const int64_t place = place_of(p, cell.n, cell.y + v, cell.x);
#pragma unroll 1
    for (int r = 0; r < cell.width; ++r, walk.step()) {
      const int64_t label = packed ? static_cast<int64_t>(((r < 4 ? eight[0] : eight[1]) >> (8 * (r & 3))) & 255u)
                                   : label_at(p.target, offset + r * p.target.strides[2]);
      int kind = class_of(label, p);
      if (kind == p.classes) {
        found.wrong = true;
        LabelReport{p.report}.tell(place + r, label);
        kind = kIgnored;
      }
      if (!walk.keeps(kind) || !is_hard_enough(p, kind, place + r)) kind = kIgnored;
      const bool counts = is_class(kind, p);
      found.kept |= static_cast<uint64_t>(counts) << (v * K + r);
      if (counts && factors != nullptr)
        factors[(v * K + r) * kWarp] = target_factor(p, kind) * weight_of(p, place + r);
      if (p.pixel_weight != nullptr) {
        if (!counts) continue;
        const float weight = p.pixel_weight[place + r];
        sums.add_weight(kind, weight, v, r);
        if (p.smoothing > 0.0f) sums.add_weight(p.classes, weight, v, r);
        continue;
      }
      const uint32_t one = kNumber + v * kRow + r * kColumn + static_cast<uint32_t>(r * v);
      if (kind != run_kind) {
        sums.add_run(run_kind, run);
        run = 0, run_kind = kind;
      }
      run += one;
      all += counts ? one : 0;
    }
  }
  if (p.pixel_weight == nullptr) {
    sums.add_run(run_kind, run);
    if (p.smoothing > 0.0f) sums.add_run(p.classes, all);
  }
  return found;
}

}  // namespace fcnkern::cuda
