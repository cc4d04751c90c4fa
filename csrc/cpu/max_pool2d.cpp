// max_pool2d forward: lines of outputs, a vector of neighbouring windows (in channels_last of channels) at a time.
// Reads each input line once for each line of windows that it is in, all but the first time from the caches; writes
// each output, and each winner as one byte. Bound by memory: of 2x2 windows in fp32, 16 bytes in and 5 out.
#include "max_pool2d_lines.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

// The largest element so far of one window, or of one a lane, and its place: the first of equal ones, the last NaN.
template <class V, class P>
struct Best {
  V value;
  P place;

  Best(V v, int at) : value(v), place(P{} + at) {}
  void meet(V v, int at) {
    const auto wins = (v > value) | (v != v);
    value = wins ? v : value;
    place = wins ? P{} + at : place;
  }
  void close() {
    const auto open = (value > 0) | (value != value);
    value = open ? value : V{};
    place = open ? place : P{} + kNoWinner;
  }
};
template <class T>
using BestOne = Best<T, int>;
template <class T>
using BestLanes = Best<Vec<T>, Mask<T>>;

// Where neighbouring outputs go; null winners are not wanted.
template <class T>
struct Target {
  T* values;
  uint8_t* winners;

  Target from(int64_t at) const { return {values + at, winners == nullptr ? nullptr : winners + at}; }
  void put(const BestLanes<T>& best) const {
    store(values, best.value);
    if (winners != nullptr) *reinterpret_cast<Bytes*>(winners) = __builtin_convertvector(best.place, Bytes);
  }
  void put(const BestOne<T>& best) const {
    *values = best.value;
    if (winners != nullptr) *winners = static_cast<uint8_t>(best.place);
  }
};

// A line of windows: rows[r] points at the line of the map that their row r is, for the rows in `range`.
template <class T>
struct WindowRows {
  Range range;
  const T* rows[kNoWinner];
};

// Element `column` of kLanes windows that are kStride apart; their first elements are at `row`. Reads nothing past
// the last one's `width` elements: columns share vectors of whole pairs, save a last one without a partner.
template <int kStride, class T>
FCNKERN_INLINE Vec<T> elements(const T* row, int column, int width) {
  if constexpr (kStride == 1) return load(row + column);
  const T* const pairs = row + (column & ~1);
  const Vec<T> a = load(pairs);
  if (column % 2 == 0 && column == width - 1) return evens_then_odds<T>(a, load(pairs + kLanes - 1));
  const Vec<T> b = load(pairs + kLanes);
  return column % 2 == 0 ? evens<T>(a, b) : odds<T>(a, b);
}

// kLanes windows that lie inside the map save for rows, from column `start` on. kWidth: 0 stands for any.
template <class T, int kStride, int kWidth>
FCNKERN_INLINE BestLanes<T> pool_lanes(const WindowRows<T>& lines, int64_t start, int any_width) {
  const int width = kWidth > 0 ? kWidth : any_width, first = static_cast<int>(lines.range.first);
  BestLanes<T> best(elements<kStride>(lines.rows[first] + start, 0, width), first * width);
  for (int row = first; row < lines.range.last; ++row)
    for (int column = 0; column < width; ++column)
      if (row > first || column > 0)
        best.meet(elements<kStride>(lines.rows[row] + start, column, width), row * width + column);
  return best;
}

template <class T>
class Forward {
 public:
  struct Room {
    T *copies, *values;
  };

  static Room carve(const MaxPool2dParams& p, Carver& carver) {
    const int64_t depth = depth_of(p), rows = p.kernel[0];
    const bool widened = size_of(p.dtype) < static_cast<int64_t>(sizeof(T));
    return {widened ? carver.take<T>(rows * p.size[1] * depth) : nullptr,
            widened ? carver.take<T>(p.out_size[1] * depth) : nullptr};
  }

  Forward(const MaxPool2dParams& p, const Room& room)
      : p_(p), room_(room), depth_(depth_of(p)), lines_(p.dtype, p.x, p.size[1] * depth_, p.kernel[0], room.copies) {}

  // Pools into line `line` of the output.
  void run(int64_t line) {
    const int64_t plane = line / p_.out_size[0], y = line % p_.out_size[0], length = p_.out_size[1] * depth_;
    const int64_t top = plane * p_.size[0] + y * p_.stride[0] - p_.padding[0];
    from_.range = inside(p_, 0, y);
    for (int64_t row = from_.range.first; row < from_.range.last; ++row) from_.rows[row] = lines_.at(top + row);
    T* const values = room_.values != nullptr ? room_.values : static_cast<T*>(p_.y) + line * length;
    const Target<T> to{values, p_.winners == nullptr ? nullptr : p_.winners + line * length};
    if (p_.channels_last) {
      pool_pixels(to);
    } else if (p_.stride[1] == 2) {
      p_.kernel[1] == 2 ? pool_line<2, 2>(to) : p_.kernel[1] == 3 ? pool_line<2, 3>(to) : pool_line<2, 0>(to);
    } else if (p_.stride[1] == 1) {
      p_.kernel[1] == 3 ? pool_line<1, 3>(to) : pool_line<1, 0>(to);
    } else {
      pool_windows(to, 0, p_.out_size[1]);
    }
    if (room_.values != nullptr) store_block<T>(p_.dtype, p_.y, line * length, 0, 1, 1, length, values, 0);
  }

 private:
  using Lanes = typename VecOf<T>::Unaligned;

  // Vectors of windows, the last of which may overlap the one before, between windows that reach over an end.
  template <int kStride, int kWidth>
  void pool_line(const Target<T>& to) {
    const int width = static_cast<int>(p_.kernel[1]);
    const int64_t reach = width + kStride * (kLanes - 1);
    const int64_t first = least(p_.out_size[1], ceil_div(p_.padding[1], kStride));
    const int64_t room = p_.size[1] + p_.padding[1] - reach, last = room < 0 ? -1 : room / kStride;
    int64_t done = first;
    while (done <= last || (done > first && done < last + kLanes)) {
      const int64_t x = least(done, last);
      pool_vector<kStride, kWidth>(to, x);
      done = x + kLanes;
    }
    pool_windows(to, 0, first);
    pool_windows(to, done, p_.out_size[1]);
  }

  template <int kStride, int kWidth>
  void pool_vector(const Target<T>& to, int64_t x) {
    const int64_t start = x * kStride - p_.padding[1];
    fetch_ahead(start, kStride * kLanes);
    BestLanes<T> best = pool_lanes<T, kStride, kWidth>(from_, start, static_cast<int>(p_.kernel[1]));
    if (p_.relu) best.close();
    to.from(x).put(best);
  }

  // Lines are too short for processors to foresee the next one: asks for what the next windows below begin with.
  void fetch_ahead(int64_t start, int64_t count) const {
    const int64_t ahead = start + p_.stride[0] * p_.size[1];
    for (int64_t row = from_.range.first; row < from_.range.last; ++row)
      for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T)))
        __builtin_prefetch(from_.rows[row] + ahead + i);
  }

  // Windows one by one, as those are that reach over an end or lie further apart.
  void pool_windows(const Target<T>& to, int64_t first, int64_t last) const {
    for (int64_t x = first; x < last; ++x) to.from(x).put(pool_one<BestOne<T>, T>(x, 0));
  }

  void pool_pixels(const Target<T>& to) const {
    for (int64_t x = 0; x < p_.out_size[1]; ++x) {
      int64_t c = 0;
      for (; c + kLanes <= depth_; c += kLanes) to.from(x * depth_ + c).put(pool_one<BestLanes<T>, Lanes>(x, c));
      for (; c < depth_; ++c) to.from(x * depth_ + c).put(pool_one<BestOne<T>, T>(x, c));
    }
  }

  // Window x, for the channels from c on that an Element holds.
  template <class B, class Element>
  B pool_one(int64_t x, int64_t c) const {
    const Range columns = inside(p_, 1, x);
    const int width = static_cast<int>(p_.kernel[1]);
    const int64_t start = (x * p_.stride[1] - p_.padding[1]) * depth_ + c;
    const int row = static_cast<int>(from_.range.first), column = static_cast<int>(columns.first);
    const auto element = [&](int r, int k) {
      return *reinterpret_cast<const Element*>(from_.rows[r] + start + k * depth_);
    };
    B best(element(row, column), row * width + column);
    for (int r = row; r < from_.range.last; ++r)
      for (int k = column; k < columns.last; ++k)
        if (r > row || k > column) best.meet(element(r, k), r * width + k);
    if (p_.relu) best.close();
    return best;
  }

  const MaxPool2dParams& p_;
  const Room room_;
  const int64_t depth_;
  Lines<T> lines_;
  WindowRows<T> from_;
};

}  // namespace

void max_pool2d_forward(const MaxPool2dParams& p) {
  const int64_t lines = plane_count(p) * p.out_size[0];
  p.dtype == DType::kF64 ? for_all_lines<Forward<double>>(p, lines) : for_all_lines<Forward<float>>(p, lines);
}

}  // namespace fcnkern::FCNKERN_ISA
