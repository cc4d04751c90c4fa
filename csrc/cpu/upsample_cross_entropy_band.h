// One thread's part of upsample_cross_entropy: a run of bands, each cut into blocks of kLanes cells.
#pragma once

#include "upsample_cross_entropy_fast.h"
#include "upsample_cross_entropy_job.h"
#include "upsample_cross_entropy_labels.h"
#include "upsample_cross_entropy_lanes.h"
#include "upsample_cross_entropy_pixel.h"
#include "upsample_cross_entropy_points.h"

namespace fcnkern::FCNKERN_ISA::cross_entropy {

// The cells in the lanes of a block.
template <class L>
struct LaneCells {
  BlockLabels<L> labels;
  const int32_t *first, *pixels;  // the first column of each, and how many it has
};

template <class T, class L>
class BandWorker {
 public:
  BandWorker(Carver& carver, const Job<T>& job)
      : job_(job),
        p_(job.p),
        classes_(job.p.upsampling.scores.c),
        point_stride_(job.point_stride()),
        labels_(carver, job.p, job.columns),
        scores_(carver, job),
        moments_(carver, job.p.upsampling.scores.c, sizeof(L), job.p.pixel_weight != nullptr, has_holes(job.p)),
        fast_(carver, job.p.upsampling.scores.c),
        pixel_(carver, job.p.upsampling.scores.c),
        gradient_(carver, job) {
    above_ = carver.take<T>(points_size());
    below_ = carver.take<T>(points_size());
    corners_ = carver.take<Corners<T>>(classes_);
    packed_corners_ = carver.take<T>(4 * (classes_ + 1) * kPackedStride);
    packed_words_ = carver.take<uint32_t>(kCellPixels * BlockLabels<L>::kWords * kLanes);
  }

  // Does bands first .. last - 1, counted over all images; sums[i] becomes that of band i. Later calls must
  // be for later bands.
  void run(int64_t first, int64_t last, Totals* sums, Rim<T>& rim) {
    if (!is_prepared_) prepare();
    gradient_.use_rim(rim);
    for (int64_t i = first; i < last; ++i) {
      const int64_t n = i / job_.bands, band = i % job_.bands;
      if (p_.grad != nullptr && (i == first || band == 0)) gradient_.begin(n, band);
      sums[i] = run_band(n, band);
      if (p_.grad == nullptr) continue;
      gradient_.end_band(band);
      if (band + 1 == job_.bands)
        gradient_.end(p_.upsampling.rows.n_in);
      else if (i + 1 == last)
        gradient_.end(job_.first_own_row(band + 1));
    }
  }

  const GradientRows<T>& gradient() const { return gradient_; }
  LabelError error() const { return labels_.error(); }

 private:
  static constexpr int64_t kNoRow = INT64_MIN;
  static constexpr double kNatsPerLog2 = 0.69314718055994531;

  // Once, by the thread that is to use the memory.
  void prepare() {
    moments_.clear();
    labels_.prepare();
    if (p_.grad != nullptr) gradient_.clear_band();
    std::memset(above_, 0, points_size() * sizeof(T));
    std::memset(below_, 0, points_size() * sizeof(T));
    is_prepared_ = true;
  }

  static bool has_holes(const UpsampleCrossEntropyParams& p) {
    return (p.keep_count > 0 && p.cell < kCellPixels) || p.hard_losses != nullptr;
  }

  int64_t points_size() const { return (classes_ + 1) * point_stride_; }

  Totals run_band(int64_t n, int64_t band) {
    totals_ = Totals{};
    for (int32_t cell = job_.band_first[band]; cell < job_.band_first[band + 1]; ++cell)
      run_cells(n, job_.top_row(band), cell);
    moments_.take_counts(totals_);
    totals_.loss += sum(loss_);
    loss_ = Vec<double>{};
    return totals_;
  }

  // Makes above_ and below_ hold source rows `row` and row + 1 of image n.
  void read_points(int64_t n, int64_t row) {
    if (image_ != n) above_row_ = below_row_ = kNoRow;
    image_ = n;
    if (below_row_ == row) {
      T* reused = above_;
      above_ = below_;
      below_ = reused;
      above_row_ = row;
      below_row_ = kNoRow;
    }
    if (above_row_ != row) scores_.read(n, row, above_);
    if (below_row_ != row + 1) scores_.read(n, row + 1, below_);
    above_row_ = row;
    below_row_ = row + 1;
  }

  // One row of cells, below source row `row`.
  void run_cells(int64_t n, int64_t row, int32_t row_cell) {
    const int rows = job_.rows.pixels[row_cell];
    y_ = job_.rows.first[row_cell];
    labels_.read(n, y_, rows);
    if (p_.losses != nullptr) {
      T* losses =
          static_cast<T*>(p_.losses) + (n * p_.upsampling.rows.n_out + y_) * p_.upsampling.columns.n_out;
      std::memset(losses, 0, rows * p_.upsampling.columns.n_out * sizeof(T));
    }
    if (labels_.active_count() == 0) return;
    read_points(n, row);
    const int64_t packed_runs = (labels_.active_count() + kLanes - 1) / kLanes;
    const bool neighbours = 5 * packed_runs >= 4 * labels_.active_runs();  // moving corners takes a quarter more
    ahead_ = labels_.ahead(n, y_ + rows);
    ahead_.class_bytes = scores_.class_bytes();
    ahead_.divide((neighbours ? labels_.active_runs() : packed_runs) * classes_);
    Block<T> block{};
    block.classes = classes_;
    block.rows = rows;
    block.columns = job_.columns.max_pixels == 1 ? 1 : (job_.columns.max_pixels + 1) / 2 * 2;
    block.du = job_.columns.step;
    block.v0 = job_.rows.weight[row_cell];
    block.dv = rows > 1 ? job_.rows.step : 0;  // not to be multiplied by 0 where it is steep
    const int64_t count = labels_.active_count();
    for (int64_t i = 0, end; i < count; i = end) {
      const int64_t cell = labels_.active()[i] / kLanes * kLanes;
      for (end = i; end < count && (neighbours ? labels_.active()[end] < cell + kLanes : end < i + kLanes);)
        ++end;
      if (neighbours && job_.columns.neighbours(cell))
        run_neighbours(block, cell);
      else
        run_packed(block, labels_.active() + i, static_cast<int>(end - i));
    }
  }

  // Lanes are the cells from `cell` on, at neighbouring points: their corners are read and their gradients
  // added in place.
  void run_neighbours(Block<T>& block, int64_t cell) {
    const int64_t point = job_.columns.point[cell];
    block.stride = point_stride_;
    block.top_left = above_ + point;
    block.top_right = above_ + point + 1;
    block.bottom_left = below_ + point;
    block.bottom_right = below_ + point + 1;
    block.u0 = load(job_.columns.weight + cell);
    ahead_.scores = scores_.ahead(image_, above_row_, point);
    run_block(block, {labels_.at(cell), job_.columns.first + cell, job_.columns.pixels + cell},
              PointRows<T>{gradient_.top() + point, gradient_.bottom() + point, point_stride_});
  }

  // Lanes are `used` cells with pixels that count, wherever they are: their corners are gathered from the
  // points.
  void run_packed(Block<T>& block, const int32_t* active, int used) {
    const Columns<T>& cells = job_.columns;
    const int64_t rows = classes_ + 1;
    int32_t point[kLanes], first[kLanes], pixels[kLanes], cell[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      // Others take an empty cell.
      cell[lane] = lane < used ? active[lane] : static_cast<int32_t>(cells.count);
      point[lane] = lane < used ? cells.point[cell[lane]] : point[lane - 1];
      first[lane] = cells.first[cell[lane]];
      pixels[lane] = cells.pixels[cell[lane]];
      block.u0[lane] = cells.weight[cell[lane]];
    }
    ahead_.scores = scores_.ahead(image_, above_row_, point[0]);
    const LanePoints<T> places(point, used, {gradient_.top(), gradient_.bottom(), point_stride_});
    places.gather(above_, point_stride_, rows, packed_corners_);
    places.gather(below_, point_stride_, rows, packed_corners_ + 2 * rows * kPackedStride);
    block.stride = kPackedStride;
    block.top_left = packed_corners_;
    block.top_right = packed_corners_ + rows * kPackedStride;
    block.bottom_left = packed_corners_ + 2 * rows * kPackedStride;
    block.bottom_right = packed_corners_ + 3 * rows * kPackedStride;
    const bool neighbours = used == kLanes && cell[kLanes - 1] - cell[0] == kLanes - 1;
    const BlockLabels<L> labels = neighbours ? labels_.at(cell[0]) : packed_labels(cell, block.rows);
    run_block(block, {labels, first, pixels}, places);
  }

  BlockLabels<L> packed_labels(const int32_t* cell, int rows) const {
    const BlockLabels<L> all = labels_.at(0);
    for (int word = 0; word < rows * BlockLabels<L>::kWords; ++word)
      for (int lane = 0; lane < kLanes; ++lane)
        packed_words_[word * kLanes + lane] = all.words[word * all.stride + cell[lane]];
    return {packed_words_, kLanes};
  }

  // Adds a block to the totals, and its gradient to `out`.
  template <class Out>
  void run_block(const Block<T>& block, const LaneCells<L>& cells, const Out& out) {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (block.columns > 1 && prepare_geometric(block, fast_)) {
        if (p_.count_correct) {
          find_best(block, fast_);
          count_correct(block, cells.labels, [&](int v, int r) { return fast_.best[v * kCellPixels + r]; });
        }
        return run_fast(block, cells, out);
      }
    }
    if (p_.count_correct)
      count_correct(block, cells.labels, [&](int v, int r) {
        return pixel_.argmax(block, p_.upsampling.skip_zero_weights, v, r);
      });
    run_pixels(block, cells);
    if (p_.grad == nullptr) return;
    for (int64_t c = 0; c < classes_; ++c) out.add(c, corners_[c]);
  }

  template <class Out>
  void run_fast(const Block<float>& block, const LaneCells<L>& cells, const Out& out) {
    sum_exponentials(block, fast_);
    moments_.add(cells.labels, block.rows, block.columns);
    if (p_.losses != nullptr)
      write_losses(block, cells);
    else
      add_loss(block, cells, out);
    moments_.forget();
  }

  // The loss of a block whose exponentials are summed and whose labels are counted, and its gradient.
  template <class Out>
  void add_loss(const Block<float>& block, const LaneCells<L>& cells, const Out& out) {
    const bool weighted = p_.pixel_weight != nullptr || !job_.weights.uniform;
    if (p_.pixel_weight != nullptr) read_factors(block.rows, cells);
    moments_.close(job_.weights.weight, [&](int32_t c) { return factor_moments(block.rows, cells.labels, c); });
    if (!job_.weights.uniform) weigh_labels(block.rows, cells.labels);
    moments_.weigh(job_.weights);
    const VecF loss = sum_logs(block, cells.labels, weighted, fast_) + label_loss(block, moments_);
    loss_ += __builtin_convertvector(loss, Vec<double>) * kNatsPerLog2;
    if (p_.grad != nullptr) add_gradient(block, moments_, fast_, ahead_, out);
  }

  // Calls visit(r * kLanes + lane, index in a map) for the pixels of row v.
  template <class Visit>
  void each_pixel(const LaneCells<L>& cells, int v, Visit visit) const {
    const int64_t row = (image_ * p_.upsampling.rows.n_out + y_ + v) * p_.upsampling.columns.n_out;
    for (int lane = 0; lane < kLanes; ++lane)
      for (int r = 0; r < cells.pixels[lane]; ++r) visit(r * kLanes + lane, row + cells.first[lane] + r);
  }

  // Fills fast_.weights with the weights of pixels that count.
  void read_factors(int rows, const LaneCells<L>& cells) {
    const float* factors = static_cast<const float*>(p_.pixel_weight);
    VecF* weights = fast_.weights;
    for (int v = 0; v < rows; ++v, weights += kCellPixels) {
      float* const row = reinterpret_cast<float*>(weights);
      each_pixel(cells, v, [&](int to, int64_t from) { row[to] = factors[from]; });
      for (int r = 0; r < kCellPixels; ++r)
        weights[r] = cells.labels.label_at(v, r) != BlockLabels<L>::kNone ? weights[r] : VecF{};
    }
  }

  // Moments of fast_.weights over the pixels of class c.
  Moments<float> factor_moments(int rows, const BlockLabels<L>& labels, int32_t c) const {
    Moments<float> all{};
    for (int v = 0; v < rows; ++v) {
      VecF one{}, right{};
#pragma GCC unroll 8
      for (int r = 0; r < kCellPixels; ++r) {
        const VecF factor = labels.label_at(v, r) == c ? fast_.weights[v * kCellPixels + r] : VecF{};
        one += factor;
        right += static_cast<float>(r) * factor;
      }
      const float down = static_cast<float>(v);
      all = all + Moments<float>{one, down * one, right, down * right};
    }
    return all;
  }

  // Takes fast_.weights, or 1 without pixel weights, times the weight of each pixel's label.
  void weigh_labels(int rows, const BlockLabels<L>& labels) {
    using Labels = BlockLabels<L>;
    const float* weights = job_.weights.lse;
    const bool has_factors = p_.pixel_weight != nullptr;
    float* out = reinterpret_cast<float*>(fast_.weights);
    for (int i = 0; i < rows * Labels::kWords; ++i, out += Labels::kPerWord * kLanes)
      for (int lane = 0; lane < kLanes; ++lane) {
        const uint32_t word = labels.words[i * labels.stride + lane];
#pragma GCC unroll 4
        for (int k = 0; k < Labels::kPerWord; ++k) {
          const int64_t label = static_cast<L>(word >> (Labels::kBits * k));
          const float weight = weights[sizeof(L) == 1 || label < classes_ ? label : classes_];
          out[k * kLanes + lane] = has_factors ? weight * out[k * kLanes + lane] : weight;
        }
      }
  }

  void write_losses(const Block<float>& block, const LaneCells<L>& cells) {
    moments_.close(job_.weights.weight, [](int32_t) { return Moments<float>{}; });
    find_losses(block, cells.labels, moments_, job_.weights, fast_);
    float* const losses = static_cast<float*>(p_.losses);
    for (int v = 0; v < block.rows; ++v) {
      const float* const row = reinterpret_cast<const float*>(fast_.sums + v * kCellPixels);
      each_pixel(cells, v, [&](int from, int64_t to) { losses[to] = row[from]; });
    }
  }

  void run_pixels(const Block<T>& block, const LaneCells<L>& cells) {
    Corners<T>* corners = p_.grad != nullptr ? corners_ : nullptr;
    if (corners != nullptr) std::memset(static_cast<void*>(corners), 0, classes_ * sizeof(Corners<T>));
    for (int v = 0; v < block.rows; ++v)
      for (int r = 0; r < block.columns; ++r) run_pixel(block, cells, v, r, corners);
  }

  void run_pixel(const Block<T>& block, const LaneCells<L>& cells, int v, int r, Corners<T>* corners) {
    const T* factors = static_cast<const T*>(p_.pixel_weight);
    T* losses = static_cast<T*>(p_.losses);
    const int64_t row = (image_ * p_.upsampling.rows.n_out + y_ + v) * p_.upsampling.columns.n_out + r;
    PixelLane<T> pixel{};
    pixel.label = cells.labels.label_at(v, r);
    bool any_counts = false;
    for (int lane = 0; lane < kLanes; ++lane) {
      const bool counts = pixel.label[lane] != BlockLabels<L>::kNone;
      pixel.counts[lane] = counts ? -1 : 0;
      any_counts |= counts;
      if (!counts) pixel.label[lane] = 0;
      pixel.factor[lane] = !counts ? 0 : factors != nullptr ? factors[row + cells.first[lane]] : 1;
      totals_.valid += counts;
      totals_.weight += counts ? job_.weights.weight[pixel.label[lane]] * pixel.factor[lane] : 0;
    }
    if (!any_counts) return;
    const Vec<T> loss =
        pixel_.run(block, job_.weights, p_.upsampling.skip_zero_weights, v, r, pixel, corners);
    totals_.loss += sum(loss);
    if (losses == nullptr) return;
    for (int lane = 0; lane < kLanes; ++lane)
      if (pixel.counts[lane]) losses[row + cells.first[lane]] = loss[lane];
  }

  // Counts the pixels whose label is the class that `best` gives for (v, r).
  template <class Best>
  void count_correct(const Block<T>& block, const BlockLabels<L>& labels, Best best) {
    VecI count{};
    for (int v = 0; v < block.rows; ++v)
      for (int r = 0; r < block.columns; ++r) count -= best(v, r) == labels.label_at(v, r);
    totals_.correct += static_cast<int64_t>(sum(count));
  }

  const Job<T>& job_;
  const UpsampleCrossEntropyParams& p_;
  int64_t classes_, point_stride_;
  LabelRows<T, L> labels_;
  ScoreRows<T> scores_;
  LabelMoments<T> moments_;
  FastScratch fast_;
  PixelPath<T> pixel_;
  GradientRows<T> gradient_;
  T *above_, *below_;  // points, [class * point_stride_ + point], at [classes_] their least score
  Corners<T>* corners_;
  T* packed_corners_;  // [corner][class * kPackedStride + lane]
  uint32_t* packed_words_;
  int64_t image_ = -1, above_row_ = kNoRow, below_row_ = kNoRow;
  int64_t y_ = 0;  // first row of the pixels at hand
  Ahead ahead_;
  Vec<double> loss_{};  // of the band's fast blocks, lane by lane
  bool is_prepared_ = false;
  Totals totals_;
};

}  // namespace fcnkern::FCNKERN_ISA::cross_entropy
