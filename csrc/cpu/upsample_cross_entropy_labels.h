// Rows of target labels: narrowed, with the pixels that do not count marked, and packed cell by cell.
#pragma once

#include <type_traits>

#include "philox.h"
#include "upsample_cross_entropy.h"
#include "upsample_cross_entropy_block.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// out = label, or kNone where it is ignored. Returns whether a label is neither a class nor ignored.
template <class L, class Label>
bool narrow_row(const Label* labels, int64_t stride, int64_t n, int64_t classes, int64_t ignore_index,
                L* out) {
  using Wide = std::make_unsigned_t<std::conditional_t<(sizeof(Label) > sizeof(L)), Label, L>>;
  const bool can_match = static_cast<Label>(ignore_index) == ignore_index;
  const Wide match = can_match ? static_cast<Wide>(-1) : 0;
  const Wide ignored = static_cast<Wide>(static_cast<Label>(ignore_index)),
             limit = static_cast<Wide>(classes);
  Wide bad = 0;
  const auto convert = [&](int64_t i, Label value) {
    const Wide label = static_cast<Wide>(value);
    const Wide same = (label == ignored ? static_cast<Wide>(-1) : 0) & match;
    bad |= (label >= limit ? static_cast<Wide>(-1) : 0) & static_cast<Wide>(~same);
    out[i] = static_cast<L>(label | same);
  };
  if (stride == 1)
    for (int64_t i = 0; i < n; ++i) convert(i, labels[i]);
  else
    for (int64_t i = 0; i < n; ++i) convert(i, labels[i * stride]);
  return bad != 0;
}

// Up to kCellPixels rows of one image.
template <class T, class L>
class LabelRows {
 public:
  using Labels = BlockLabels<L>;

  LabelRows(Carver& carver, const UpsampleCrossEntropyParams& params, const Cells<T>& columns)
      : p_(params),
        columns_(columns),
        width_(params.upsampling.columns.n_out),
        stride_(width_ + 64),
        cells_(Cells<T>::capacity(columns.count)),
        labels_(carver.take<L>(kCellPixels * stride_)),
        words_(carver.take<uint64_t>(kCellPixels * Labels::kWords * cells_)),
        blank_(carver.take<uint64_t>(cells_)),
        active_(carver.take<int32_t>(cells_)),
        draws_(params.keep_count > 0 ? carver.take<uint32_t>(width_ / params.cell + 1) : nullptr) {}

  // Reads rows y .. y + rows - 1 of image n and packs them.
  void read(int64_t n, int64_t y, int rows) {
    for (int v = 0; v < rows; ++v) {
      L* labels = labels_ + v * stride_;
      read_row(n, y + v, labels);
      if (p_.keep_count > 0) drop_unsampled(n, y + v, labels);
      if (p_.hard_losses != nullptr) drop_easy(n, y + v, labels);
      for (int64_t x = width_; x < stride_; ++x) labels[x] = Labels::kNone;
    }
    pack(rows);
  }

  // The cells of these rows with a pixel that counts, in order.
  const int32_t* active() const { return active_; }
  int64_t active_count() const { return active_count_; }
  // How many runs of kLanes neighbouring cells, the first starting at cell 0, hold one of them.
  int64_t active_runs() const { return active_runs_; }

  BlockLabels<L> at(int64_t cell) const { return {words_ + cell, cells_}; }

  // The lowest position of an invalid label; position < 0: there is none.
  LabelError error() const { return error_; }

 private:
  void read_row(int64_t n, int64_t y, L* out) {
    const LabelMap& map = p_.target;
    const int64_t offset = n * map.strides[0] + y * map.strides[1];
    switch (map.type) {
      case LabelType::kU8:
        return narrow(static_cast<const uint8_t*>(map.data) + offset, n, y, out);
      case LabelType::kI16:
        return narrow(static_cast<const int16_t*>(map.data) + offset, n, y, out);
      case LabelType::kI32:
        return narrow(static_cast<const int32_t*>(map.data) + offset, n, y, out);
      case LabelType::kI64:
        return narrow(static_cast<const int64_t*>(map.data) + offset, n, y, out);
    }
  }

  template <class Label>
  void narrow(const Label* labels, int64_t n, int64_t y, L* out) {
    const int64_t stride = p_.target.strides[2];
    if (!narrow_row(labels, stride, width_, p_.upsampling.scores.c, p_.ignore_index, out)) return;
    int64_t x = 0;
    const auto is_fine = [&](int64_t label) {
      return label == p_.ignore_index || (label >= 0 && label < p_.upsampling.scores.c);
    };
    while (is_fine(static_cast<int64_t>(labels[x * stride]))) ++x;
    if (error_.position < 0)  // rows come in order
      error_ = {(n * p_.upsampling.rows.n_out + y) * width_ + x, static_cast<int64_t>(labels[x * stride]),
                true};
    for (x = 0; x < width_; ++x) out[x] = Labels::kNone;
  }

  void drop_unsampled(int64_t n, int64_t y, L* labels) {
    const int64_t cell = p_.cell, cell_y = (p_.first_row + y) / cell;
    if (n != drawn_image_ || cell_y != drawn_row_) draw(n, cell_y);
    for (int64_t cell_x = 0; cell_x * cell < width_; ++cell_x) {
      const int64_t end = (cell_x + 1) * cell < width_ ? (cell_x + 1) * cell : width_;
      const double word = draws_[cell_x];
      if (p_.keep_count == 1) {
        if (word < p_.keep[0] * 0x1p32) continue;
        for (int64_t x = cell_x * cell; x < end; ++x) labels[x] = Labels::kNone;
      } else {
        for (int64_t x = cell_x * cell; x < end; ++x)
          if (labels[x] != Labels::kNone && !(word < p_.keep[labels[x]] * 0x1p32)) labels[x] = Labels::kNone;
      }
    }
  }

  void draw(int64_t n, int64_t cell_y) {
    const uint32_t row = static_cast<uint32_t>(cell_y), image = static_cast<uint32_t>(p_.first_image + n);
    for (int64_t cell_x = 0; cell_x * p_.cell < width_; ++cell_x)
      draws_[cell_x] = philox4x32(p_.seed, {{static_cast<uint32_t>(cell_x), row, image, 0}}).word[0];
    drawn_image_ = n;
    drawn_row_ = cell_y;
  }

  void drop_easy(int64_t n, int64_t y, L* labels) const {
    const T* losses = static_cast<const T*>(p_.hard_losses) + (n * p_.upsampling.rows.n_out + y) * width_;
    const T above = static_cast<T>(p_.hard_above), from = static_cast<T>(p_.hard_from);
    for (int64_t x = 0; x < width_; ++x)
      labels[x] = losses[x] > above || losses[x] >= from ? labels[x] : Labels::kNone;
  }

  void pack(int rows) {
    for (int64_t cell = 0; cell < cells_; ++cell) blank_[cell] = ~uint64_t{0};
    for (int v = 0; v < rows; ++v)
      for (int q = 0; q < Labels::kWords; ++q) {
        const L* labels = labels_ + v * stride_ + q * Labels::kPerWord;
        uint64_t* words = words_ + (v * Labels::kWords + q) * cells_;
        for (int64_t cell = 0; cell < cells_; ++cell) {
          uint64_t word;
          std::memcpy(&word, labels + columns_.first[cell], 8);
          const int used = columns_.pixels[cell] - q * Labels::kPerWord;
          word |= used >= Labels::kPerWord ? 0
                  : used <= 0              ? ~uint64_t{0}
                                           : ~uint64_t{0} << (used * Labels::kBits);
          words[cell] = word;
          blank_[cell] &= word;
        }
      }
    active_count_ = active_runs_ = 0;
    int64_t last_run = -1;
    for (int64_t cell = 0; cell < columns_.count; ++cell) {
      if (blank_[cell] == ~uint64_t{0}) continue;
      active_[active_count_++] = static_cast<int32_t>(cell);
      active_runs_ += cell / kLanes != last_run;
      last_run = cell / kLanes;
    }
  }

  const UpsampleCrossEntropyParams& p_;
  const Cells<T>& columns_;
  int64_t width_, stride_, cells_;
  L* labels_;        // [row][x]
  uint64_t* words_;  // [row][word][cell]
  uint64_t* blank_;  // [cell], all bits set where no pixel counts
  int32_t* active_;
  uint32_t* draws_;  // first words of a row of sampling cells
  int64_t active_count_ = 0, active_runs_ = 0;
  int64_t drawn_image_ = -1, drawn_row_ = -1;
  LabelError error_{-1, 0, true};
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
