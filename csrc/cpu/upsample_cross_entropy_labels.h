// Rows of target labels: narrowed, with the pixels that do not count marked, and packed cell by cell.
#pragma once

#include <type_traits>

#include "label_limit.h"
#include "philox_run.h"
#include "upsample_cross_entropy.h"
#include "upsample_cross_entropy_block.h"
#include "upsample_cross_entropy_columns.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// out = label, or kNone where it is ignored. Returns whether a label is neither a class nor ignored.
template <class L, class Label>
bool narrow_row(const Label* labels, int64_t stride, int64_t n, int64_t classes, int64_t ignore_index,
                L* out) {
  using Wide = std::make_unsigned_t<std::conditional_t<(sizeof(Label) > sizeof(L)), Label, L>>;
  constexpr Wide kAll = static_cast<Wide>(-1);
  const Wide can_match = static_cast<Label>(ignore_index) == ignore_index ? kAll : 0;
  const Wide ignored = static_cast<Wide>(static_cast<Label>(ignore_index)),
             limit = static_cast<Wide>(label_limit<Label>(classes));
  Wide bad = 0;
  const auto convert = [&](int64_t i, Label value) {
    const Wide label = static_cast<Wide>(value);
    const Wide same = (label == ignored ? kAll : 0) & can_match;
    bad |= (label >= limit ? kAll : 0) & static_cast<Wide>(~same);
    out[i] = static_cast<L>(label | same);
  };
  if (stride == 1)
    for (int64_t i = 0; i < n; ++i) convert(i, labels[i]);
  else
    for (int64_t i = 0; i < n; ++i) convert(i, labels[i * stride]);
  return bad != 0;
}

// Labels cut to their last bits, and what they looked like.
template <class L, class Wide>
struct Truncated {
  Wide sums = 0;  // bits of label + from, of all
  L most = 0;     // label + 1 in the last bits, 0 after kNone; the greatest
  Wide from;

  __attribute__((always_inline)) void take(const Wide* __restrict labels, int64_t n, L* __restrict out) {
    Wide all = 0;
    for (int64_t i = 0; i < n; ++i) {
      out[i] = static_cast<L>(labels[i]);
      all |= static_cast<Wide>(labels[i] + from);
    }
    L greatest = 0;
    for (int64_t i = 0; i < n; ++i) {
      const L next = static_cast<L>(out[i] + 1);
      greatest = next > greatest ? next : greatest;
    }
    sums |= all;
    most = greatest > most ? greatest : most;
  }
};

// What narrow_row does, for the values of ignore_index whose last bits are kNone's: then no label needs a
// comparison. False for other values, and where a label is neither a class nor ignored. A row is read in
// equal parts, of which the last two may overlap, so that none ends in single labels.
template <class L, class Label>
bool truncate_row(const Label* labels, int64_t n, int64_t classes, int64_t ignore_index, L* out) {
  using Wide = std::make_unsigned_t<Label>;
  constexpr int64_t kPart = 64;
  constexpr L kNone = static_cast<L>(-1);
  if (static_cast<Label>(ignore_index) != ignore_index) return false;
  if (ignore_index != -1 && ignore_index != kNone) return false;
  const Wide* from = reinterpret_cast<const Wide*>(labels);
  Truncated<L, Wide> row{0, 0, static_cast<Wide>(ignore_index == -1 ? 1 : 0)};
  for (int64_t i = 0; i + kPart < n; i += kPart) row.take(from + i, kPart, out + i);
  if (n < kPart)
    row.take(from, n, out);
  else
    row.take(from + n - kPart, kPart, out + n - kPart);
  return row.most <= label_limit<Label>(classes) && (sizeof(Label) <= sizeof(L) || row.sums <= kNone);
}

// Up to kCellPixels rows of one image.
template <class T, class L>
class LabelRows {
 public:
  using Labels = BlockLabels<L>;

  LabelRows(Carver& carver, const UpsampleCrossEntropyParams& params, const Columns<T>& columns)
      : p_(params),
        columns_(columns),
        width_(params.upsampling.columns.n_out),
        stride_(width_ + 64),
        cells_(Cells<T>::capacity(columns.count)),
        labels_(carver.take<L>(kCellPixels * stride_)),
        words_(carver.take<uint32_t>(kCellPixels * Labels::kWords * cells_)),
        past_end_(carver.take<uint64_t>(Labels::kWords / 2 * cells_)),
        blank_(carver.take<uint64_t>(cells_)),
        active_(carver.take<int32_t>(cells_)),
        draws_(params.keep_count > 0 ? carver.take<uint32_t>(width_ / params.cell + 1 + kPhiloxRun) : nullptr),
        dropped_(params.keep_count == 1 ? carver.take<L>(width_) : nullptr) {}

  void prepare() {
    std::memset(labels_, 0xff, kCellPixels * stride_ * sizeof(L));  // kNone stays past every row's end
    std::memset(words_, 0xff, kCellPixels * Labels::kWords * cells_ * sizeof *words_);  // and in the padding
    even_from_ = columns_.count > 1 ? columns_.count - 1 : 0;
    const int32_t* first = columns_.first;
    while (even_from_ > 0 && first[even_from_] - first[even_from_ - 1] == kCellPixels) --even_from_;
    for (int i = 0; i < Labels::kWords; i += 2)
      for (int64_t cell = 0; cell < cells_; ++cell) {
        const int64_t used = columns_.pixels[cell] - i * Labels::kPerWord, bits = used * Labels::kBits;
        past_end_[i / 2 * cells_ + cell] = bits >= 64 ? 0 : ~uint64_t{0} << (bits > 0 ? bits : 0);
      }
  }

  // Reads rows y .. y + rows - 1 of image n and packs them.
  void read(int64_t n, int64_t y, int rows) {
    for (int v = 0; v < rows; ++v) {
      L* labels = labels_ + v * stride_;
      read_row(n, y + v, labels);
      if (p_.keep_count > 0) drop_unsampled(n, y + v, labels);
      if (p_.hard_losses != nullptr) drop_easy(n, y + v, labels);
    }
    pack(rows);
  }

  // The labels of the rows from y of image n on, where they lie together in memory.
  Ahead ahead(int64_t n, int64_t y) const {
    const LabelMap& map = p_.target;
    if (map.strides[2] != 1 || map.strides[1] != width_) return {};
    const int64_t left = p_.upsampling.rows.n_out - y, rows = left < kCellPixels ? left : kCellPixels;
    const int64_t size = int64_t{1} << static_cast<int>(map.type);
    const char* data = static_cast<const char*>(map.data);
    return {data + (n * map.strides[0] + y * width_) * size, rows * width_ * size};
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
    if (stride == 1 && truncate_row(labels, width_, p_.upsampling.scores.c, p_.ignore_index, out)) return;
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

  void drop_unsampled(int64_t n, int64_t y, L* __restrict labels) {
    const int64_t cell = p_.cell, cell_y = (p_.first_row + y) / cell;
    if (n != drawn_image_ || cell_y != drawn_row_) draw(n, cell_y);
    if (p_.keep_count > 1) {
      const uint32_t* drawn = draws_;
      for (int64_t x = 0; x < width_; ++drawn)
        for (const int64_t end = x + cell < width_ ? x + cell : width_; x < end; ++x)
          if (labels[x] != Labels::kNone && !(*drawn < p_.keep[labels[x]] * 0x1p32)) labels[x] = Labels::kNone;
      return;
    }
    const L* dropped = dropped_;
    for (int64_t x = 0, width = width_; x < width; ++x) labels[x] |= dropped[x];
  }

  void draw(int64_t n, int64_t cell_y) {
    const uint32_t row = static_cast<uint32_t>(cell_y), image = static_cast<uint32_t>(p_.first_image + n);
    const int64_t count = (width_ + p_.cell - 1) / p_.cell;
    philox4x32_run(p_.seed, row, image, 0, count, draws_);
    drawn_image_ = n;
    drawn_row_ = cell_y;
    if (p_.keep_count != 1) return;
    const uint64_t limit = static_cast<uint64_t>(std::ceil(p_.keep[0] * 0x1p32));  // draws are whole numbers
    if (p_.cell == 1) return drop_pixels(limit);
    for (int64_t cell_x = 0; cell_x < count; ++cell_x) {
      const L dropped = draws_[cell_x] < limit ? L{0} : Labels::kNone;
      const int64_t x = cell_x * p_.cell, rest = width_ - x;
      L* out = dropped_ + x;
      for (int64_t i = 0, end = rest < p_.cell ? rest : p_.cell; i < end; ++i) out[i] = dropped;
    }
  }

  // Fills dropped_ where each pixel has a draw.
  void drop_pixels(uint64_t limit) {
    const uint32_t* const draws = draws_;
    L* const __restrict out = dropped_;
    const uint32_t last = static_cast<uint32_t>(limit - 1);
    if (limit == 0)
      std::memset(out, 0xff, width_ * sizeof(L));
    else
      for (int64_t x = 0, width = width_; x < width; ++x) out[x] = draws[x] <= last ? L{0} : Labels::kNone;
  }

  void drop_easy(int64_t n, int64_t y, L* labels) const {
    const T* losses = static_cast<const T*>(p_.hard_losses) + (n * p_.upsampling.rows.n_out + y) * width_;
    const T above = static_cast<T>(p_.hard_above), from = static_cast<T>(p_.hard_from);
    for (int64_t x = 0; x < width_; ++x)
      labels[x] = losses[x] > above || losses[x] >= from ? labels[x] : Labels::kNone;
  }

  void pack(int rows) {
    std::memset(blank_, 0xff, cells_ * sizeof(uint64_t));
    for (int v = 0; v < rows; ++v)
      for (int i = 0; i < Labels::kWords; i += 2)
        pack_row(labels_ + v * stride_ + i * Labels::kPerWord, past_end_ + i / 2 * cells_,
                 words_ + (v * Labels::kWords + i) * cells_);
    active_count_ = active_runs_ = 0;
    int64_t last_run = -1;
    for (int64_t cell = 0; cell < columns_.count; ++cell) {
      if (blank_[cell] == ~uint64_t{0}) continue;
      active_[active_count_++] = static_cast<int32_t>(cell);
      active_runs_ += cell / kLanes != last_run;
      last_run = cell / kLanes;
    }
  }

  // Two words of each cell, from labels on.
  void pack_row(const L* __restrict labels, const uint64_t* __restrict past_end, uint32_t* __restrict words) {
    const int64_t cells = cells_, count = columns_.count, even = even_from_;
    const int32_t* __restrict first = columns_.first;
    uint64_t* __restrict blank = blank_;
    const auto take = [=](int64_t cell, const L* from) {
      uint64_t pair;
      std::memcpy(&pair, from, 8);
      pair |= past_end[cell];
      words[cell] = static_cast<uint32_t>(pair);
      words[cells + cell] = static_cast<uint32_t>(pair >> 32);
      blank[cell] &= pair;
    };
    for (int64_t cell = 0; cell < even; ++cell) take(cell, labels + first[cell]);
    const L* start = labels + first[even];
    for (int64_t cell = even; cell < count; ++cell) take(cell, start + (cell - even) * kCellPixels);
  }

  const UpsampleCrossEntropyParams& p_;
  const Columns<T>& columns_;
  int64_t width_, stride_, cells_;
  L* labels_;           // [row][x]
  uint32_t* words_;     // [row][word][cell]
  uint64_t* past_end_;  // [pair of words][cell], the bits of labels that are not the cell's
  uint64_t* blank_;     // [cell], all bits set where no pixel counts
  int32_t* active_;
  uint32_t* draws_;  // first words of a row of sampling cells
  L* dropped_;       // [x], all bits set where one probability for all pixels drops them
  int64_t even_from_ = 0;  // the first cell of those, up to the last one, that begin kCellPixels apart
  int64_t active_count_ = 0, active_runs_ = 0;
  int64_t drawn_image_ = -1, drawn_row_ = -1;
  LabelError error_{-1, 0, true};
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
