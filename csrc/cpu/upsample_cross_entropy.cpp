// Softmax cross-entropy of linearly upsampled scores and its gradient, with no full-resolution scores.
//
// Lanes of a vector are neighbouring source cells; upsample_cross_entropy_fast.cpp says what is done with
// them. Reads each label once and each source row twice at most, writes each row of the gradient once and
// scales it once. Working memory per thread: some rows of points and cells for all classes, O(classes * (w +
// W)), never H * W * C. The same bits for any number of threads: see Job.
#include "upsample_cross_entropy.h"

#include <new>

#include "threads.h"
#include "upsample_cross_entropy_band.h"

namespace fcnkern::FCNKERN_ISA {
namespace cross_entropy {

constexpr int64_t kWorkPerThread = 1 << 17;  // pixels times classes that are worth a thread

template <class T>
int useful_threads(const Job<T>& job) {
  const UpsampleCrossEntropyParams& p = job.p;
  int64_t most = p.upsampling.scores.n * p.upsampling.rows.n_out * p.upsampling.columns.n_out *
                 p.upsampling.scores.c / kWorkPerThread;
  if (most > p.upsampling.scores.n * job.bands) most = p.upsampling.scores.n * job.bands;
  return most < 1 ? 1 : p.threads < most ? p.threads : static_cast<int>(most);
}

// Divides the gradient of source rows first .. last - 1 (counted over all images) by the divisor.
template <class T>
void scale_rows(const Job<T>& job, int64_t first, int64_t last, T factor) {
  const UpsampleCrossEntropyParams& p = job.p;
  const int64_t planes = p.channels_last ? 1 : p.upsampling.scores.c,
                width = p.upsampling.columns.n_in * (p.channels_last ? p.upsampling.scores.c : 1);
  for (int64_t row = first; row < last;) {
    const int64_t n = row / p.upsampling.rows.n_in, y = row % p.upsampling.rows.n_in;
    const int64_t end = last - n * p.upsampling.rows.n_in < p.upsampling.rows.n_in
                            ? last - n * p.upsampling.rows.n_in
                            : p.upsampling.rows.n_in;
    for (int64_t plane = n * planes; plane < (n + 1) * planes; ++plane) {
      T* grad = static_cast<T*>(p.grad) + (plane * p.upsampling.rows.n_in + y) * width;
      for (int64_t i = 0; i < (end - y) * width; ++i) grad[i] *= factor;
    }
    row = n * p.upsampling.rows.n_in + end;
  }
}

// The bands, cut into parts that threads take as they come, and the working memory of all threads.
template <class T, class L>
class Team {
 public:
  using Worker = BandWorker<T, L>;

  Team(const Job<T>& job, int threads)
      : job_(job),
        threads_(threads),
        bands_(job.p.upsampling.scores.n * job.bands),
        shares_(bands_, threads),
        memory_(threads * worker_bytes() + shared_bytes()) {
    Carver carver(memory_.data());
    sums_ = carver.take<Totals>(bands_);
    rims_ = carver.take<Rim<T>>(parts());
    for (int64_t part = 0; part < parts(); ++part) rims_[part].points = carver.take<T>(job.rim_size());
    workers_ = carver.take<Worker>(threads);
    for (int t = 0; t < threads; ++t) {
      Carver own(carver.take<char>(thread_bytes_));
      new (workers_ + t) Worker(own, job);
    }
  }

  int64_t parts() const { return shares_.count(); }

  void run(int64_t part, int thread) {
    workers_[thread].run(shares_.begin(part), shares_.end(part), sums_, rims_[part]);
  }

  // Completes the rows of the gradient that a part began, once all have run.
  void finish(int64_t part, int thread) {
    const int64_t first = first_row(part), last = first_row(part + 1), height = job_.p.upsampling.rows.n_in;
    if (part + 1 < parts() && rims_[part + 1].is_set)
      workers_[thread].gradient().add_rim((last - 1) / height, (last - 1) % height, rims_[part + 1]);
    const double factor = 1 / divisor(totals());
    if (factor != 1) scale_rows(job_, first, last, static_cast<T>(factor));
  }

  UpsampleCrossEntropyResult result() const {
    const Totals all = totals();
    LabelError error{-1, 0, true};
    for (int t = 0; t < threads_; ++t) {
      const LabelError& own = workers_[t].error();
      if (own.position >= 0 && (error.position < 0 || own.position < error.position)) error = own;
    }
    return {all.loss / divisor(all), all.weight, all.valid, all.correct, error};
  }

 private:
  size_t worker_bytes() {
    Carver carver;
    const Worker measured(carver, job_);
    thread_bytes_ = carver.used() + 4096;  // apart from the next thread's, also for prefetchers
    return thread_bytes_ + sizeof(Worker) + 64;
  }
  size_t shared_bytes() const {
    Carver carver;
    carver.take<Totals>(bands_);
    carver.take<Rim<T>>(parts());
    for (int64_t part = 0; part < parts(); ++part) carver.take<T>(job_.rim_size());
    return carver.used() + 128;
  }

  int64_t first_row(int64_t part) const {
    const int64_t band = shares_.begin(part), n = band / job_.bands;
    return n * job_.p.upsampling.rows.n_in + (band == bands_ ? 0 : job_.first_own_row(band % job_.bands));
  }

  Totals totals() const {
    Totals all;
    for (int64_t i = 0; i < bands_; ++i) all.add(sums_[i]);
    return all;
  }
  // Infinite where nothing counts: loss and gradient are then 0.
  double divisor(const Totals& all) const {
    return job_.p.divisor > 0 ? job_.p.divisor : all.weight > 0 ? all.weight : static_cast<double>(INFINITY);
  }

  const Job<T>& job_;
  int threads_;
  int64_t bands_;
  Shares shares_;
  size_t thread_bytes_ = 0;
  Scratch memory_;
  Totals* sums_;
  Rim<T>* rims_;  // [part]
  Worker* workers_;
};

template <class T, class L>
UpsampleCrossEntropyResult run(const UpsampleCrossEntropyParams& p) {
  const Job<T> job(p);
  const int threads = useful_threads(job);
  Team<T, L> team(job, threads);
  for_each(team.parts(), threads, [&](int64_t part, int thread) { team.run(part, thread); });
  if (p.grad != nullptr)
    for_each(team.parts(), threads, [&](int64_t part, int thread) { team.finish(part, thread); });
  return team.result();
}

}  // namespace cross_entropy

UpsampleCrossEntropyResult upsample_cross_entropy(const UpsampleCrossEntropyParams& params) {
  if (params.upsampling.scores.type == DType::kF64) return cross_entropy::run<double, uint16_t>(params);
  if (params.upsampling.scores.c > 255) return cross_entropy::run<float, uint16_t>(params);
  return cross_entropy::run<float, uint8_t>(params);
}

}  // namespace fcnkern::FCNKERN_ISA
