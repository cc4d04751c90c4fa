// Where a block's lanes lie among the points, if they are not simply neighbours.
#pragma once

#include "upsample_cross_entropy_block.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// Gathered corners are [corner][row * kPackedStride + lane]; whole vectors are written from every lane on.
constexpr int kPackedStride = 2 * kLanes;

// Lanes and their left points, several lanes to a point perhaps. They are cut into windows of at most kLanes
// neighbouring points, one vector each; a window's turn k takes the k-th lane of each point.
template <class T>
class LanePoints {
 public:
  // The lanes from `used` on have a point too, and no gradient. `gradient` holds the rows of all points.
  LanePoints(const int32_t* point, int used, const PointRows<T>& gradient) : gradient_(gradient) {
    for (int lane = 0, end; lane < kLanes; lane = end) {
      Window& window = windows_[count_++];
      int32_t least = point[lane], most = point[lane];
      for (end = lane + 1; end < kLanes; ++end) {
        const int32_t low = point[end] < least ? point[end] : least, high = point[end] > most ? point[end] : most;
        if (high - low >= kLanes) break;
        least = low, most = high;
      }
      window = {least, lane, Mask<T>{}, turns_};
      for (int i = lane; i < end; ++i) window.place[i - lane] = point[i] - least;
      find_turns(window, used < end ? used - lane : end - lane);
    }
  }

  // The left and the right corners of every lane, from `rows` rows of points, `stride` apart.
  void gather(const T* points, int64_t stride, int64_t rows, T* left) const {
    T* right = left + rows * kPackedStride;
    for (int i = 0; i < count_; ++i) {
      const Mask<T> place = windows_[i].place;
      const T* from = points + windows_[i].point;
      for (int64_t at = windows_[i].lane; at < rows * kPackedStride; at += kPackedStride, from += stride) {
        store(left + at, permute<T>(load(from), place));
        store(right + at, permute<T>(load(from + 1), place));
      }
    }
  }

  // Adds a class's corners of every lane to its points.
  void add(int64_t c, const Corners<T>& q) const {
    for (int i = 0, turn = 0; i < count_; ++i) {
      const Window& window = windows_[i];
      Corners<T> met{};
      for (; turn < window.turns_end; ++turn) {
        const Mask<T> lane = lane_[turn], there = there_[turn];
        const auto take = [=](Vec<T> of_lanes) { return there ? permute<T>(of_lanes, lane) : Vec<T>{}; };
        met.top_left += take(q.top_left);
        met.top_right += take(q.top_right);
        met.bottom_left += take(q.bottom_left);
        met.bottom_right += take(q.bottom_right);
      }
      PointRows<T>{gradient_.top + window.point, gradient_.bottom + window.point, gradient_.stride}.add(c, met);
    }
  }

 private:
  struct Window {
    int32_t point;  // the lowest one
    int lane;       // the first one
    Mask<T> place;  // of each of its lanes, from `lane` on
    int turns_end;
  };

  void find_turns(Window& window, int lanes) {
    int taken[kLanes] = {};  // lanes of each point, so far
    for (int i = 0; i < lanes; ++i) {
      const int place = static_cast<int>(window.place[i]), turn = window.turns_end + taken[place]++;
      if (turn == turns_) {
        lane_[turn] = there_[turn] = Mask<T>{};
        ++turns_;
      }
      lane_[turn][place] = window.lane + i;
      there_[turn][place] = -1;
    }
    window.turns_end = turns_;
  }

  PointRows<T> gradient_;
  Window windows_[kLanes];
  int count_ = 0, turns_ = 0;
  Mask<T> lane_[kLanes], there_[kLanes];  // [turn], of all windows
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
