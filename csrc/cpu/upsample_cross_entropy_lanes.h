// Where a block's lanes lie among the points, if they are not simply neighbours.
#pragma once

#include "upsample_cross_entropy_block.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// Gathered corners are [corner][row * kPackedStride + lane]; whole vectors are written from every lane on.
constexpr int kPackedStride = 2 * kLanes;

// The first `used` lanes, with their left points in ascending order, several to a point perhaps. The others
// follow with a point each, and have no gradient.
template <class T>
class LanePoints {
 public:
  LanePoints(const int32_t* point, int used) : points_(point) {
    if (point[used - 1] - point[0] < kLanes)
      find_turns(used);
    else
      find_runs();
  }

  // The left and the right corners of every lane, from `rows` rows of points, `stride` apart.
  void gather(const T* points, int64_t stride, int64_t rows, T* left) const {
    T* right = left + rows * kPackedStride;
    if (turns_ > 0) return gather_near(points + points_[0], stride, rows, left, right);
    for (int i = 0; i < runs_; ++i) {
      const T* from = points + points_[first_[i]];
      for (int64_t at = first_[i]; at < rows * kPackedStride; at += kPackedStride, from += stride) {
        store(left + at, load(from));
        store(right + at, load(from + 1));
      }
    }
  }

  // Adds the corners of each class to its rows of points.
  void scatter(const Corners<T>* corners, int64_t classes, const PointRows<T>& all) const {
    if (turns_ > 0) {
      const PointRows<T> rows{all.top + points_[0], all.bottom + points_[0], all.stride};
      for (int64_t c = 0; c < classes; ++c) {
        const Corners<T>& q = corners[c];
        rows.add(c, {meet(q.top_left), meet(q.top_right), meet(q.bottom_left), meet(q.bottom_right)});
      }
      return;
    }
    for (int i = 0; i < runs_; ++i) {
      scatter_run(i, &Corners<T>::top_left, corners, classes, all.top, all.stride);
      scatter_run(i, &Corners<T>::bottom_left, corners, classes, all.bottom, all.stride);
      scatter_run(i, &Corners<T>::top_right, corners, classes, all.top + 1, all.stride);
      scatter_run(i, &Corners<T>::bottom_right, corners, classes, all.bottom + 1, all.stride);
    }
  }

 private:
  // All points lie in one vector. Turn k takes the k-th lane of each point.
  void find_turns(int used) {
    int lanes[kLanes] = {};  // of each point, so far
    for (int lane = 0; lane < used; ++lane) {
      const int at = points_[lane] - points_[0], turn = lanes[at]++;
      if (turn == turns_) {
        lane_[turn] = there_[turn] = Mask<T>{};
        ++turns_;
      }
      lane_[turn][at] = lane;
      there_[turn][at] = -1;
      place_[lane] = at;
    }
  }

  // Lanes first_[i] .. first_[i + 1] - 1 have neighbouring points.
  void find_runs() {
    for (int lane = 0; lane < kLanes; ++lane)
      if (lane == 0 || points_[lane] != points_[lane - 1] + 1) first_[runs_++] = lane;
    first_[runs_] = kLanes;
  }

  void gather_near(const T* points, int64_t stride, int64_t rows, T* left, T* right) const {
    const Mask<T> place = place_;
    for (int64_t at = 0; at < rows * kPackedStride; at += kPackedStride, points += stride) {
      store(left + at, permute<T>(load(points), place));
      store(right + at, permute<T>(load(points + 1), place));
    }
  }

  // The sum of each point's lanes.
  Vec<T> meet(Vec<T> lanes) const {
    Vec<T> sum{};
    for (int turn = 0; turn < turns_; ++turn)
      sum += there_[turn] ? permute<T>(lanes, lane_[turn]) : Vec<T>{};
    return sum;
  }

  void scatter_run(int i, Vec<T> Corners<T>::* corner, const Corners<T>* corners, int64_t classes, T* points,
                   int64_t stride) const {
    Mask<T> in_run{};
    for (int lane = 0; lane < first_[i + 1] - first_[i]; ++lane) in_run[lane] = -1;
    T* to = points + points_[first_[i]];
    for (int64_t c = 0; c < classes; ++c, to += stride) {
      const Vec<T> run = load(reinterpret_cast<const T*>(&(corners[c].*corner)) + first_[i]);
      store(to, load(to) + (in_run ? run : Vec<T>{}));
    }
  }

  const int32_t* points_;
  int turns_ = 0, runs_ = 0;  // one of them is 0
  Mask<T> lane_[kLanes], there_[kLanes];  // [turn]
  Mask<T> place_{};
  int first_[kLanes + 1];
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
