// max_pool2d forward: lines of outputs, a vector of neighbouring windows (in channels_last of channels) at a time.
// Reads each input line once for each line of windows that it is in, all but the first time from the caches; writes
// each output, and each winner as one byte. Bound by memory: of 2x2 windows in fp32, 16 bytes in and 5 out.
#include "max_pool2d_lines.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

// The largest element so far of one window a lane, and its place: the first of equal ones, the last NaN.
template <class T>
struct Best {
  Vec<T> value;
  Mask<T> place;
};
template <class T>
FCNKERN_INLINE Best<T> best_of(Vec<T> v, int place) {
  return {v, Mask<T>{} + place};
}
template <class T>
FCNKERN_INLINE void meet(Best<T>& best, Vec<T> v, int place) {
  const Mask<T> wins = (v > best.value) | (v != v);
  best.value = wins ? v : best.value;
  best.place = wins ? Mask<T>{} + place : best.place;
}
template <class T>
FCNKERN_INLINE void close(Best<T>& best) {
  const Mask<T> open = (best.value > 0) | (best.value != best.value);
  best.value = open ? best.value : Vec<T>{};
  best.place = open ? best.place : Mask<T>{} + kNoWinner;
}

// Where `count` neighbouring outputs go; null winners are not wanted.
template <class T>
struct Target {
  T* values;
  uint8_t* winners;

  Target from(int64_t at) const { return {values + at, winners == nullptr ? nullptr : winners + at}; }
  void put(const Best<T>& best, int64_t count) const {
    const Bytes places = __builtin_convertvector(best.place, Bytes);
    if (count == kLanes) {
      store(values, best.value);
      if (winners != nullptr) *reinterpret_cast<Bytes*>(winners) = places;
      return;
    }
    for (int lane = 0; lane < count; ++lane) {
      values[lane] = best.value[lane];
      if (winners != nullptr) winners[lane] = places[lane];
    }
  }
};

// A line of windows: rows[r] points at the line of the map that their row r is, for the rows in `range`.
template <class T>
struct WindowRows {
  Range range;
  const T* rows[kNoWinner];
};

// Element `column` of kLanes windows that are kStride apart; their first elements are at `row`. Reads whole pairs.
template <int kStride, class T>
FCNKERN_INLINE Vec<T> elements(const T* row, int column) {
  if constexpr (kStride == 1) return load(row + column);
  const T* const pairs = row + (column & ~1);
  const Vec<T> a = load(pairs), b = load(pairs + kLanes);
  return column & 1 ? odds<T>(a, b) : evens<T>(a, b);
}

// kLanes windows that lie inside the map save for rows, from column `start` on. kWidth: 0 stands for any.
template <class T, int kStride, int kWidth>
FCNKERN_INLINE Best<T> pool_lanes(const WindowRows<T>& lines, int64_t start, int any_width) {
  const int width = kWidth > 0 ? kWidth : any_width, first = static_cast<int>(lines.range.first);
  Best<T> best = best_of<T>(elements<kStride>(lines.rows[first] + start, 0), first * width);
  for (int row = first; row < lines.range.last; ++row)
    for (int column = 0; column < width; ++column)
      if (row > first || column > 0)
        meet<T>(best, elements<kStride>(lines.rows[row] + start, column), row * width + column);
  return best;
}

template <class T>
class Forward {
 public:
  struct Room {
    T *copies, *values, *edge;
  };

  static Room carve(const MaxPool2dParams& p, Carver& carver) {
    const int64_t depth = depth_of(p), rows = p.kernel[0];
    const bool widened = size_of(p.dtype) < static_cast<int64_t>(sizeof(T));
    return {widened ? carver.take<T>(rows * p.size[1] * depth) : nullptr,
            widened ? carver.take<T>(p.out_size[1] * depth) : nullptr, carver.take<T>(rows * edge_length(p))};
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
  // What a vector of windows reads of a line.
  static int64_t edge_length(const MaxPool2dParams& p) { return 2 * kLanes + p.kernel[1]; }

  template <int kStride, int kWidth>
  void pool_line(const Target<T>& to) {
    const int64_t beside = least(p_.out_size[1], ceil_div(p_.padding[1], kStride));
    pool_windows(to, 0, beside);
    const int width = static_cast<int>(p_.kernel[1]);
    const int64_t reach = kStride == 1 ? width - 1 + kLanes : ((width - 1) & ~1) + 2 * kLanes;
    for (int64_t x = beside; x < p_.out_size[1]; x += kLanes) {
      const int64_t start = x * kStride - p_.padding[1];
      const bool whole = start + reach <= p_.size[1];
      if (whole) fetch_ahead(start, kStride * kLanes);
      Best<T> best = whole ? pool_lanes<T, kStride, kWidth>(from_, start, width)
                           : pool_lanes<T, kStride, kWidth>(edge(start), 0, width);
      if (p_.relu) close(best);
      to.from(x).put(best, least(kLanes, p_.out_size[1] - x));
    }
  }

  // Lines are too short for processors to foresee the next one: asks for what the next windows below begin with.
  void fetch_ahead(int64_t start, int64_t count) const {
    const int64_t ahead = start + p_.stride[0] * p_.size[1];
    for (int64_t row = from_.range.first; row < from_.range.last; ++row)
      for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T)))
        __builtin_prefetch(from_.rows[row] + ahead + i);
  }

  // The end of the lines from column `start` on, followed by -inf, which no window begins with and none takes.
  const WindowRows<T>& edge(int64_t start) {
    const int64_t length = edge_length(p_), count = least(length, p_.size[1] - start);
    edges_.range = from_.range;
    for (int64_t row = edges_.range.first; row < edges_.range.last; ++row) {
      T* const copy = room_.edge + row * length;
      std::memcpy(copy, from_.rows[row] + start, count * sizeof(T));
      for (int64_t i = count; i < length; ++i) copy[i] = static_cast<T>(-INFINITY);
      edges_.rows[row] = copy;
    }
    return edges_;
  }

  // Windows one by one, as those are that begin before the map or lie further apart.
  void pool_windows(const Target<T>& to, int64_t first, int64_t last) {
    for (int64_t x = first; x < last; ++x) {
      const Best<T> best = pool_depth(x, 0, [](const T* from) { return splat(*from); });
      to.from(x).put(best, 1);
    }
  }

  void pool_pixels(const Target<T>& to) {
    for (int64_t x = 0; x < p_.out_size[1]; ++x) {
      int64_t c = 0;
      for (; c + kLanes <= depth_; c += kLanes)
        to.from(x * depth_ + c).put(pool_depth(x, c, [](const T* from) { return load(from); }), kLanes);
      for (; c < depth_; ++c)
        to.from(x * depth_ + c).put(pool_depth(x, c, [](const T* from) { return splat(*from); }), 1);
    }
  }

  // Window x for the channels from c on that `get` reads.
  template <class Get>
  Best<T> pool_depth(int64_t x, int64_t c, const Get& get) const {
    const Range columns = inside(p_, 1, x);
    const int width = static_cast<int>(p_.kernel[1]);
    const int64_t start = (x * p_.stride[1] - p_.padding[1]) * depth_ + c;
    const int row = static_cast<int>(from_.range.first), column = static_cast<int>(columns.first);
    Best<T> best = best_of<T>(get(from_.rows[row] + start + column * depth_), row * width + column);
    for (int r = row; r < from_.range.last; ++r)
      for (int k = column; k < columns.last; ++k)
        if (r > row || k > column) meet<T>(best, get(from_.rows[r] + start + k * depth_), r * width + k);
    if (p_.relu) close(best);
    return best;
  }

  const MaxPool2dParams& p_;
  const Room room_;
  const int64_t depth_;
  Lines<T> lines_;
  WindowRows<T> from_, edges_;
};

}  // namespace

void max_pool2d_forward(const MaxPool2dParams& p) {
  const int64_t lines = plane_count(p) * p.out_size[0];
  p.dtype == DType::kF64 ? for_all_lines<Forward<double>>(p, lines) : for_all_lines<Forward<float>>(p, lines);
}

}  // namespace fcnkern::FCNKERN_ISA
