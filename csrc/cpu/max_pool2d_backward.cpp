// max_pool2d backward: each element of the input gathers the gradients of the windows that it won, in their order, so
// that nothing is cleared first and sums have the same bits for any number of threads. Reads gradients and winners
// once, and again from the caches; writes each element. Bound by memory: of 2x2 windows in fp32, 5 bytes in and 16
// out a window.
#include "max_pool2d_lines.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

// Lines of gradients and winners, the last few in copies with no winner on either side.
template <class T>
class GradientLines {
 public:
  // What a line has before its first window, and in all.
  static int64_t margin(const MaxPool2dParams& p) { return (p.kernel[1] - 1) / p.stride[1]; }
  static int64_t length(const MaxPool2dParams& p) {
    return margin(p) + round_up((p.size[1] - 1 + p.padding[1]) / p.stride[1] + 1, kLanes);
  }
  static int64_t slots(const MaxPool2dParams& p) { return ceil_div(p.kernel[0], p.stride[0]); }

  GradientLines(const MaxPool2dParams& p, T* values, LaneInt<T>* winners)
      : p_(p), length_(length(p)), values_(values), winners_(winners) {
    for (int64_t slot = 0; slot < slots(p); ++slot) held_[slot] = -1;
    for (int64_t i = 0; i < slots(p) * length_; ++i) values_[i] = 0, winners_[i] = kNoWinner;
  }

  // The offset of a line in both copies.
  int64_t at(int64_t line) {
    const int64_t slot = line % slots(p_), width = p_.out_size[1], offset = slot * length_;
    if (held_[slot] == line) return offset;
    const uint8_t* const from = p_.winners + line * width;
    LaneInt<T>* const to = winners_ + offset + margin(p_);
    for (int64_t x = 0; x < width; ++x) to[x] = from[x];
    load_block<T>(p_.dtype, p_.y, line * width, 0, 1, 1, static_cast<int>(width), values_ + offset + margin(p_), 0);
    held_[slot] = line;
    return offset;
  }
  const T* values() const { return values_; }
  const LaneInt<T>* winners() const { return winners_; }

 private:
  const MaxPool2dParams& p_;
  const int64_t length_;
  T* const values_;
  LaneInt<T>* const winners_;
  int64_t held_[kNoWinner];
};

// N,C,H,W: a vector of neighbouring windows at a time gives to the elements that have the same places in them.
template <class T>
class Backward {
 public:
  struct Room {
    T *values, *sums, *line;
    LaneInt<T>* winners;
  };

  static Room carve(const MaxPool2dParams& p, Carver& carver) {
    const int64_t length = GradientLines<T>::length(p), kept = GradientLines<T>::slots(p) * length;
    T* const values = carver.take<T>(kept);
    T* const sums = carver.take<T>(length * p.stride[1]);
    T* const line = p.stride[1] == 1 ? sums : carver.take<T>(length * p.stride[1]);
    return {values, sums, line, carver.take<LaneInt<T>>(kept)};
  }

  Backward(const MaxPool2dParams& p, const Room& room)
      : p_(p),
        starts_(GradientLines<T>::length(p) - GradientLines<T>::margin(p)),
        sums_(room.sums),
        line_(room.line),
        lines_(p, room.values, room.winners) {}

  // Forms line `line` of the input's gradient.
  void run(int64_t line) {
    const int64_t plane = line / p_.size[0], y = line % p_.size[0];
    const Range windows = windows_of(p_, 0, y);
    Row rows[kNoWinner];
    int count = 0;
    for (int64_t window = windows.first; window < windows.last; ++window) {
      const int64_t offset = lines_.at(plane * p_.out_size[0] + window);
      const int64_t row = y + p_.padding[0] - window * p_.stride[0];
      rows[count++] = {lines_.values() + offset, lines_.winners() + offset, static_cast<int>(row * p_.kernel[1])};
    }
    if (p_.stride[1] == 2)
      form_pairs(rows, count);
    else
      form_places(rows, count);
    store_block<T>(p_.dtype, p_.x, line * p_.size[1], 0, 1, 1, p_.size[1], line_ + p_.padding[1], 0);
  }

 private:
  // The row of a line of windows that meets the line of elements.
  struct Row {
    const T* values;
    const LaneInt<T>* winners;
    int code;  // of its first element
  };

  // Fills line_ where each window begins two elements after the one before: sums stay in registers.
  void form_pairs(const Row* rows, int count) const {
    const int64_t width = p_.kernel[1];
    if (width == 2 && count == 1) return form_pairs<2, 1>(rows, count);
    if (width == 3 && count == 1) return form_pairs<3, 1>(rows, count);
    if (width == 3 && count == 2) return form_pairs<3, 2>(rows, count);
    form_pairs<0, 0>(rows, count);
  }

  // 0 stands for any.
  template <int kWidth, int kCount>
  void form_pairs(const Row* given, int given_count) const {
    const int width = kWidth > 0 ? kWidth : static_cast<int>(p_.kernel[1]), margin = (width - 1) / 2;
    const int count = kCount > 0 ? kCount : given_count;
    Row copies[kCount > 0 ? kCount : 1];  // their own copies stay in registers
    for (int i = 0; i < kCount; ++i) copies[i] = given[i];
    const Row* const rows = kCount > 0 ? copies : given;
    T* const line = line_;
    for (int64_t x = 0, starts = starts_; x < starts; x += kLanes) {
      Vec<T> even{}, odd{};
      for (int i = 0; i < count; ++i)
        for (int back = margin; back >= 0; --back) {
          const int64_t at = margin + x - back;
          const Mask<T> code = Mask<T>{} + (rows[i].code + 2 * back), won = load(rows[i].winners + at);
          const Vec<T> value = load(rows[i].values + at);
          even += won == code ? value : Vec<T>{};
          if (2 * back + 1 < width) odd += won == code + 1 ? value : Vec<T>{};
        }
      store(line + 2 * x, low_pairs<T>(even, odd));
      store(line + 2 * x + kLanes, high_pairs<T>(even, odd));
    }
  }

  void form_places(const Row* rows, int count) const {
    for (int64_t i = 0; i < starts_ * p_.stride[1]; ++i) sums_[i] = 0;
    for (int i = 0; i < count; ++i)
      if (p_.stride[1] == 1 && p_.kernel[1] == 3)
        add_places<1, 3>(rows[i]);
      else
        add_places<0, 0>(rows[i]);
    merge();
  }

  // To the elements that are number `place` of each window, which earlier windows hold too. 0 stands for any.
  template <int kStride, int kWidth>
  void add_places(const Row& given) const {
    const Row row = given;
    const int64_t stride = kStride > 0 ? kStride : p_.stride[1], width = kWidth > 0 ? kWidth : p_.kernel[1];
    const int64_t margin = (width - 1) / stride, starts = starts_;
    for (int64_t place = 0; place < stride && place < width; ++place) {
      T* const sums = sums_ + place * starts;
      for (int64_t x = 0; x < starts; x += kLanes) {
        Vec<T> sum = load(sums + x);
        for (int64_t back = (width - 1 - place) / stride; back >= 0; --back) {
          const int64_t at = margin + x - back;
          const Mask<T> code = Mask<T>{} + static_cast<int>(row.code + place + back * stride);
          sum += load(row.winners + at) == code ? load(row.values + at) : Vec<T>{};
        }
        store(sums + x, sum);
      }
    }
  }

  // Puts the places of each window side by side.
  void merge() const {
    const int64_t stride = p_.stride[1], starts = starts_;
    if (stride == 1) return;  // line_ is sums_
    for (int64_t x = 0; x < starts; ++x)
      for (int64_t place = 0; place < stride; ++place) line_[x * stride + place] = sums_[place * starts + x];
  }

  const MaxPool2dParams& p_;
  const int64_t starts_;  // windows that begin in a line, in whole vectors
  T *const sums_, *const line_;  // [place][window] and [window][place]
  GradientLines<T> lines_;
};

// N,H,W,C: a vector of channels of one window at a time.
template <class T>
class BackwardPixels {
 public:
  struct Room {
    T *copies, *line;
  };

  static Room carve(const MaxPool2dParams& p, Carver& carver) {
    if (size_of(p.dtype) == static_cast<int64_t>(sizeof(T))) return {nullptr, nullptr};
    return {carver.take<T>(slots(p) * p.out_size[1] * p.channels), carver.take<T>(p.size[1] * p.channels)};
  }

  BackwardPixels(const MaxPool2dParams& p, const Room& room)
      : p_(p), room_(room), lines_(p.dtype, p.y, p.out_size[1] * p.channels, slots(p), room.copies) {}

  void run(int64_t line) {
    const int64_t length = p_.size[1] * p_.channels, y = line % p_.size[0];
    T* const target = room_.line != nullptr ? room_.line : static_cast<T*>(p_.x) + line * length;
    for (int64_t i = 0; i < length; ++i) target[i] = 0;
    const Range windows = windows_of(p_, 0, y);
    for (int64_t window = windows.first; window < windows.last; ++window) {
      const int64_t from = line / p_.size[0] * p_.out_size[0] + window;
      const int row = static_cast<int>(y + p_.padding[0] - window * p_.stride[0]);
      add_line(lines_.at(from), p_.winners + from * p_.out_size[1] * p_.channels, row, target);
    }
    if (room_.line != nullptr) store_block<T>(p_.dtype, p_.x, line * length, 0, 1, 1, length, target, 0);
  }

 private:
  static int64_t slots(const MaxPool2dParams& p) { return ceil_div(p.kernel[0], p.stride[0]); }

  // What a line of windows gives to the elements of their row `row`.
  void add_line(const T* grad, const uint8_t* winners, int row, T* target) const {
    const int code = row * static_cast<int>(p_.kernel[1]);
    for (int64_t x = 0; x < p_.out_size[1]; ++x, grad += p_.channels, winners += p_.channels) {
      const Range columns = inside(p_, 1, x);
      T* const start = target + (x * p_.stride[1] - p_.padding[1]) * p_.channels;
      int64_t c = 0;
      for (; c + kLanes <= p_.channels; c += kLanes) {
        const Mask<T> won = __builtin_convertvector(*reinterpret_cast<const Bytes*>(winners + c), Mask<T>);
        const Vec<T> given = load(grad + c);
        for (int k = static_cast<int>(columns.first); k < columns.last; ++k) {
          T* const sum = start + k * p_.channels + c;
          store<T>(sum, load(sum) + (won == Mask<T>{} + (code + k) ? given : Vec<T>{}));
        }
      }
      for (; c < p_.channels; ++c)
        for (int64_t k = columns.first; k < columns.last; ++k)
          if (winners[c] == code + k) start[k * p_.channels + c] += grad[c];
    }
  }

  const MaxPool2dParams& p_;
  const Room room_;
  Lines<T> lines_;
};

template <class T>
void run_all(const MaxPool2dParams& p) {
  const int64_t lines = plane_count(p) * p.size[0];
  p.channels_last ? for_all_lines<BackwardPixels<T>>(p, lines) : for_all_lines<Backward<T>>(p, lines);
}

}  // namespace

void max_pool2d_backward(const MaxPool2dParams& p) {
  p.dtype == DType::kF64 ? run_all<double>(p) : run_all<float>(p);
}

}  // namespace fcnkern::FCNKERN_ISA
