// The cells of a row, in the order in which vectors take them.
#pragma once

#include "axis.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// Cells of the columns, ordered so that kLanes in a row lie at neighbouring points where they can: first the
// first cell of every point, then the second ones and so on. Empty cells fill up vectors where that takes no
// more of them. What the members say is as in Cells.
template <class T>
class Columns {
 public:
  explicit Columns(const ResampleAxis& axis) : Columns(Cells<T>(axis)) {}

  int64_t count = 0;
  int max_pixels;
  T step;
  int32_t origin, points;

  int32_t* point = nullptr;
  int32_t* first = nullptr;
  int32_t* pixels = nullptr;
  T* weight = nullptr;

  // Whether the kLanes cells from `cell`, a multiple of kLanes, lie at neighbouring points.
  bool neighbours(int64_t cell) const { return neighbours_[cell / kLanes]; }

 private:
  // The cells that have one place among those of their points.
  struct Turn {
    int64_t cells, whole;      // whole: so many fill vectors
    int64_t start, tail, done;  // where those begin, and where the rest does; how many are placed
  };

  explicit Columns(const Cells<T>& cells)
      : max_pixels(cells.max_pixels),
        step(cells.step),
        origin(cells.origin),
        points(cells.points),
        capacity_(Cells<T>::capacity(cells.count + kLanes)),
        storage_(layout(nullptr)) {
    std::memset(storage_.data(), 0, layout(storage_.data()));
    each_cell(cells, [&](int64_t, Turn& turn) { ++turn.cells; });
    arrange(cells.count);
    each_cell(cells, [&](int64_t cell, Turn& turn) {
      const int64_t i = turn.done++, at = i < turn.whole ? turn.start + i : turn.tail + i - turn.whole;
      point[at] = cells.point[cell];
      first[at] = cells.first[cell];
      pixels[at] = cells.pixels[cell];
      weight[at] = cells.weight[cell];
      if (at >= count) count = at + 1;
    });
    for (int64_t cell = 1; cell < capacity_; ++cell)
      if (pixels[cell] == 0) point[cell] = point[cell - 1] + 1;
    for (int64_t start = 0; start < capacity_; start += kLanes) {
      bool& in_a_row = neighbours_[start / kLanes] = true;
      for (int lane = 0; lane < kLanes; ++lane) in_a_row &= point[start + lane] == point[start] + lane;
    }
  }

  size_t layout(char* block) {
    Carver carver(block);
    point = carver.take<int32_t>(capacity_);
    first = carver.take<int32_t>(capacity_);
    pixels = carver.take<int32_t>(capacity_);
    weight = carver.take<T>(capacity_);
    neighbours_ = carver.take<bool>(capacity_ / kLanes);
    turns_ = carver.take<Turn>(capacity_);
    return carver.used();
  }

  // Calls visit(cell, its turn). The last point's cells have the last turns, as it may lack some at its end.
  template <class Visit>
  void each_cell(const Cells<T>& cells, Visit visit) {
    int64_t deep = 0;
    const auto each_point = [&](auto take) {
      for (int64_t from = 0, end; from < cells.count; from = end) {
        for (end = from + 1; end < cells.count && cells.point[end] == cells.point[from];) ++end;
        take(from, end);
      }
    };
    each_point([&](int64_t from, int64_t end) { deep = end - from > deep ? end - from : deep; });
    each_point([&](int64_t from, int64_t end) {
      const int64_t skipped = end == cells.count ? deep - (end - from) : 0;
      for (int64_t cell = from; cell < end; ++cell) visit(cell, turns_[cell - from + skipped]);
    });
  }

  // Gives each turn its places.
  void arrange(int64_t cells) {
    int64_t next = 0, tails = 0;
    Turn* end = turns_;
    for (; end < turns_ + capacity_ && end->cells > 0; ++end) {
      end->whole = end->cells / kLanes * kLanes;
      end->start = next;
      next += end->whole;
      tails += end->whole < end->cells;
    }
    const bool fill = tails <= (cells - next + kLanes - 1) / kLanes;
    for (Turn* turn = turns_; turn < end; ++turn) {
      turn->tail = next;
      if (turn->whole < turn->cells) next += fill ? kLanes : turn->cells - turn->whole;
    }
  }

  int64_t capacity_;
  bool* neighbours_ = nullptr;  // [vector]
  Turn* turns_ = nullptr;
  Scratch storage_;
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
