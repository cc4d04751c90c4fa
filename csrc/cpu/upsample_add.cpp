// upsample_add forward: bands of output rows. A band's upsampling is formed in the accumulator, the skip's
// cropped rows are scored on top of it (or added), and the result is stored once: features outside the crop
// are never read.
#include "upsample_add.h"

#include "conv1x1_tile.h"
#include "depthwise.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

// Bands of rows x blocks of channels, each at most about kTileElements elements.
struct Bands {
  int64_t block, blocks, rows, bands;

  Bands(const UpsampleAddParams& u, int threads) {
    const DeconvParams& p = u.deconv;
    const bool features = u.skip_channels > 0;
    const int64_t height = p.end[0] - p.begin[0], width = p.end[1] - p.begin[1];
    const int64_t step = least(p.stride[0], height), room = Tiling::kTileElements / most(1, width);
    block = most(1, least(p.outputs, features ? kMostRows : room / step));
    block = ceil_div(p.outputs, ceil_div(p.outputs, block));
    blocks = ceil_div(p.outputs, block);
    const int64_t wanted =
        most(ceil_div(height, most(1, room / block)), ceil_div(threads, p.images * blocks));
    rows = most(1, ceil_div(height, wanted));
    if (rows > step || !features) rows = round_up(rows, step);
    bands = ceil_div(height, rows);
  }
};

template <class T>
class Forward {
 public:
  explicit Forward(const UpsampleAddParams& u)
      : u_(u),
        p_(u.deconv),
        height_(p_.end[0] - p_.begin[0]),
        width_(p_.end[1] - p_.begin[1]),
        score_(scoring(u, height_, width_)),
        skip_pixels_(u.skip, height_, width_),
        y_pixels_(p_.y, height_, width_),
        threads_(worth_threads(p_.threads, operations())),
        bands_(u, threads_),
        dense_(p_, bands_.block),
        depthwise_(p_) {}

  void run() {
    const int64_t acc_stride = round_up(bands_.rows * width_, 16), acc_size = bands_.block * acc_stride;
    const int64_t repeated = round_up(depthwise_.repeated_size(bands_.rows), 16);
    const int64_t upsampling = p_.depthwise ? repeated + depthwise_.pattern_size() : dense_.scratch_size();
    const int64_t per_thread = round_up(acc_size + most(most(conv1x1_work(bands_.block), upsampling), width_), 64);
    const int64_t weights_size = p_.depthwise ? 0 : dense_.weights_size();
    Scratch scratch(static_cast<size_t>(weights_size + threads_ * per_thread) * sizeof(T));
    T* const weights = reinterpret_cast<T*>(scratch.data());
    if (!p_.depthwise)
      for_each(dense_.jobs(), threads_, [&](int64_t job, int) { dense_.pack_weights(job, weights); });
    for_each(p_.images * bands_.blocks * bands_.bands, threads_, [&](int64_t job, int thread) {
      T* const acc = weights + weights_size + thread * per_thread;
      T* const work = acc + acc_size;
      const int64_t row = job % bands_.bands * bands_.rows,
                    channel = job / bands_.bands % bands_.blocks * bands_.block;
      const DeconvBand band = {job / bands_.bands / bands_.blocks, channel,
                               least(bands_.block, p_.outputs - channel), p_.begin[0] + row,
                               least(bands_.rows, height_ - row)};
      if (p_.depthwise) {
        upsample_channels(band, work, work + repeated, acc, acc_stride);
      } else {
        dense_.write(band, weights, work, acc, acc_stride);
      }
      if (u_.skip.data != nullptr) add_skip(band, row, work, acc, acc_stride);
      y_pixels_.for_each_run(
          first_pixel(band, row), band.rows * width_, [&](int64_t offset, int64_t done, int64_t n) {
            store_block<T>(p_.y.dtype, p_.y.data, offset + channel * p_.y.stride[1], p_.y.stride[1],
                           y_pixels_.stride_x, band.channels, n, acc + done, acc_stride);
          });
    });
  }

 private:
  static Conv1x1Params scoring(const UpsampleAddParams& u, int64_t height, int64_t width) {
    Conv1x1Params score{};
    score.images = u.deconv.images, score.height = height, score.width = width;
    score.inputs = u.skip_channels, score.outputs = u.deconv.outputs;
    score.x = u.skip, score.weight = u.skip_weight, score.scale = u.skip_scale;
    return score;
  }

  int64_t operations() const {
    const int64_t taps = ceil_div(p_.kernel[0], p_.stride[0]) * ceil_div(p_.kernel[1], p_.stride[1]);
    return p_.images * p_.outputs * height_ * width_ *
           (taps * (p_.depthwise ? 1 : p_.inputs) + 2 + u_.skip_channels);
  }

  int64_t first_pixel(const DeconvBand& band, int64_t row) const {
    return (band.image * height_ + row) * width_;
  }

  void upsample_channels(const DeconvBand& band, T* repeated, T* pattern, T* acc, int64_t acc_stride) const {
    for (int64_t c = 0; c < band.channels; ++c) {
      if (c == 0 || !p_.shared) depthwise_.make_pattern(band.channel + c, pattern);
      depthwise_.write(band, band.channel + c, pattern, repeated, acc + c * acc_stride);
    }
  }

  void add_skip(const DeconvBand& band, int64_t row, T* work, T* acc, int64_t acc_stride) const {
    const int64_t first = first_pixel(band, row), count = band.rows * width_;
    if (u_.skip_channels > 0) {
      add_conv1x1<T>(score_, skip_pixels_, band.channel, static_cast<int>(band.channels), first, count, acc,
                     acc_stride, work);
      add_bias(band, count, acc, acc_stride);
      return;
    }
    const T scale = static_cast<T>(u_.skip_scale);
    for (int64_t c = 0; c < band.channels; ++c)
      for (int64_t y = 0; y < band.rows; ++y) {
        T* to = acc + c * acc_stride + y * width_;
        load_block<T>(u_.skip.dtype, u_.skip.data,
                      band.image * u_.skip.stride[0] + (band.channel + c) * u_.skip.stride[1] +
                          (row + y) * u_.skip.stride[2],
                      0, u_.skip.stride[3], 1, static_cast<int>(width_), work, 0);
        for (int64_t i = 0; i < width_; ++i) to[i] += scale * work[i];
      }
  }

  void add_bias(const DeconvBand& band, int64_t count, T* acc, int64_t acc_stride) const {
    if (u_.skip_bias.data == nullptr) return;
    for (int64_t c = 0; c < band.channels; ++c) {
      T bias;
      load_block<T>(u_.skip_bias.dtype, u_.skip_bias.data, (band.channel + c) * u_.skip_bias.stride[0], 1, 1,
                    1, 1, &bias, 1);
      for (int64_t i = 0; i < count; ++i) acc[c * acc_stride + i] += bias;
    }
  }

  const UpsampleAddParams& u_;
  const DeconvParams& p_;
  const int64_t height_, width_;
  const Conv1x1Params score_;
  const Pixels skip_pixels_, y_pixels_;
  const int threads_;
  const Bands bands_;
  const DenseDeconv<T> dense_;
  const DepthwiseDeconv<T> depthwise_;
};

}  // namespace

void upsample_add_forward(const UpsampleAddParams& u) {
  u.deconv.y.dtype == DType::kF64 ? Forward<double>(u).run() : Forward<float>(u).run();
}

}  // namespace fcnkern::FCNKERN_ISA
