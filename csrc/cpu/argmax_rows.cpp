// Argmax of upsampled scores. Reads every score once, and again where another thread has the strip above; writes
// the confidences, and what the sink keeps. Bound: a multiply-add, a compare and two selects per output and class,
// for the classes that pruning leaves; with confidence also one exponential per output and class.
//
// A strip is a run of at most 8 output rows between the same two source rows. Work is cut into strips (and, for
// many classes, into parts of a row), each computed the same way whatever the number of threads.
#include "argmax_rows.h"

#include "argmax_block.h"
#include "argmax_exact.h"
#include "source_rows.h"
#include "threads.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

constexpr int64_t kPanelFloats = 1 << 15;  // points of one source row held per thread, where the classes allow it
constexpr int kMaxPartCells = 512;
constexpr int kPruneFrom = 16;             // outputs per cell from which looking for losing classes pays
constexpr int64_t kMinWork = 1 << 18;      // outputs times classes per thread

class FastArgmax {
 public:
  explicit FastArgmax(const ArgmaxJob& job)
      : job_(job),
        scores_(job.upsampling.scores),
        rows_(job.upsampling.rows),
        columns_(job.upsampling.columns),
        part_cells_(cells_per_part()),
        length_(part_cells_ + kLanes),
        parts_((columns_.count + part_cells_ - 1) / part_cells_),
        points_(columns_, parts_ * part_cells_ + kLanes),
        exact_(job),
        thread_bytes_(carve(nullptr).bytes),
        storage_(thread_bytes_ * static_cast<size_t>(job.threads)) {}

  void run() const {
    for_each_share(scores_.n * parts_ * rows_.count, job_.threads,
                   [&](int64_t first, int64_t last, int thread) { work(thread, first, last); });
  }

 private:
  struct Memory {  // of one thread
    SourceRow source[2];
    int32_t *survivors, *everyone;
    char* labels;
    size_t bytes;
  };

  // One strip of one part: its rows, its cells and their points.
  struct Unit {
    int64_t n, strip, first_cell;
    int cells;
    CornerPoints corners;
  };

  int cells_per_part() const {
    const int64_t budget = kPanelFloats / (scores_.c * (columns_.sliding ? 1 : 2)) - kLanes;
    const int64_t most = (columns_.count + kLanes - 1) / kLanes * kLanes;
    int64_t cells = budget < kLanes ? kLanes : budget / kLanes * kLanes;
    if (cells > kMaxPartCells) cells = kMaxPartCells;
    return static_cast<int>(cells < most ? cells : most);
  }

  Memory carve(char* block) const {
    Carver carver(block);
    Memory memory;
    const size_t panel = static_cast<size_t>(scores_.c) * static_cast<size_t>(length_);
    for (SourceRow& source : memory.source) {
      source.left = carver.take<float>(panel);
      source.right = points_.shared() ? source.left + 1 : carver.take<float>(panel);
      source.part = -1;
    }
    memory.survivors = carver.take<int32_t>(static_cast<size_t>(scores_.c) + 1);
    memory.everyone = carver.take<int32_t>(static_cast<size_t>(scores_.c));
    memory.labels = carver.take<char>(kCellPixels * row_bytes());
    memory.bytes = carver.used();
    return memory;
  }

  size_t row_bytes() const { return static_cast<size_t>(part_cells_) * kCellPixels * (job_.wide() ? 2 : 1); }

  void work(int thread, int64_t begin, int64_t end) const {
    Memory memory = carve(storage_.data() + thread_bytes_ * static_cast<size_t>(thread));
    for (int c = 0; c < scores_.c; ++c) memory.everyone[c] = c;
    for (int64_t index = begin; index < end; ++index) {
      const int64_t part = index / rows_.count, strip = index % rows_.count;
      Unit unit{part / parts_, strip, part % parts_ * part_cells_, part_cells_, {}};
      if (unit.cells > columns_.count - unit.first_cell)
        unit.cells = static_cast<int>(columns_.count - unit.first_cell);
      const bool tame = gather(memory, part, unit);
      const int64_t x = columns_.first[unit.first_cell];
      const int64_t last = unit.first_cell + unit.cells - 1;
      const int64_t end_x = columns_.first[last] + columns_.pixels[last];
      if (tame) {
        label(thread, memory, unit, static_cast<int>(end_x - x));
      } else {
        for (int row = 0; row < rows_.pixels[strip]; ++row)
          exact_.row(thread, unit.n, rows_.first[strip] + row, x, end_x);
      }
    }
  }

  // Brings both source rows of a unit in; most often the upper one is the lower one of the unit before.
  bool gather(Memory& memory, int64_t part, Unit& unit) const {
    SourceRow *source = memory.source;
    const int64_t top = rows_.left[unit.strip], bottom = rows_.right[unit.strip];
    const auto holds = [&](const SourceRow& s, int64_t row) { return s.part == part && s.row == row; };
    if (holds(source[1], top)) {
      const SourceRow upper = source[1];
      source[1] = source[0];
      source[0] = upper;
    }
    if (!holds(source[0], top)) fill(source[0], part, unit, top);
    SourceRow& below = source[bottom == top ? 0 : 1];
    if (!holds(below, bottom)) fill(below, part, unit, bottom);
    unit.corners = {source[0].left, source[0].right, below.left, below.right, length_};
    return source[0].tame && below.tame;
  }

  void fill(SourceRow& source, int64_t part, const Unit& unit, int64_t row) const {
    const int64_t count = scores_.c * length_;
    load_points(scores_, unit.n, row, points_.left(unit.first_cell), length_, source.left);
    source.tame = all_tame(source.left, count);
    if (!points_.shared()) {
      load_points(scores_, unit.n, row, points_.right(unit.first_cell), length_, source.right);
      source.tame = source.tame && all_tame(source.right, count);
    }
    source.part = part;
    source.row = row;
  }

  void label(int thread, const Memory& memory, const Unit& unit, int width) const {
    if (job_.wide())
      label_as<uint16_t>(memory, unit);
    else
      label_as<uint8_t>(memory, unit);
    job_.sink.take(job_.sink.context, thread,
                   {unit.n, rows_.first[unit.strip], columns_.first[unit.first_cell], rows_.pixels[unit.strip],
                    width, memory.labels, static_cast<int64_t>(row_bytes())});
  }

  // Outputs per cell in one go: as many as fit into a word of labels.
  template <class Label>
  void label_as(const Memory& memory, const Unit& unit) const {
    const int outputs = columns_.max_pixels;
    for (int cell = 0; cell < unit.cells; cell += kLanes) {
      if (outputs == 1)
        block<Label, 1>(memory, unit, cell);
      else if (outputs == 2)
        block<Label, 2>(memory, unit, cell);
      else if (outputs <= 4 || sizeof(Label) == 2)
        block<Label, 4>(memory, unit, cell);
      else
        block<Label, 8 / sizeof(Label)>(memory, unit, cell);
    }
  }

  template <class Label, int kOutputs>
  void block(const Memory& memory, const Unit& unit, int cell) const {
    const CornerPoints at = unit.corners.from_cell(cell);
    const int64_t column = unit.first_cell + cell;
    const int classes = static_cast<int>(scores_.c), rows = rows_.pixels[unit.strip];
    const int32_t* candidates = memory.everyone;
    int count = classes;
    if (rows * columns_.max_pixels >= kPruneFrom) {
      candidates = memory.survivors;
      count = surviving_classes(at, classes, memory.survivors);
    }
    const int32_t *pixels = columns_.pixels + column, *first = columns_.first + column;
    const int64_t x = columns_.first[unit.first_cell];
    int32_t local[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) local[lane] = static_cast<int32_t>(first[lane] - x);
    for (int row = 0; row < rows; ++row) {
      Label* out = reinterpret_cast<Label*>(memory.labels + row_bytes() * static_cast<size_t>(row));
      const float below = rows_.weight[unit.strip] + static_cast<float>(row) * rows_.step;
      for (int offset = 0; offset < columns_.max_pixels; offset += kOutputs) {
        const VecF right = load(columns_.weight + column) + static_cast<float>(offset) * columns_.step;
        const RowPosition position{below, right, columns_.step};
        VecI label[kOutputs];
        VecF best[kOutputs];
        winners<kOutputs>(at, candidates, count, position, label, best);
        scatter_labels<Label, kOutputs>(label, pixels, local, offset, out);
        if (job_.confidence == nullptr) continue;
        probabilities<kOutputs>(at, classes, position, best, best);
        const int64_t line = unit.n * job_.upsampling.rows.n_out + rows_.first[unit.strip] + row;
        float* confidence = static_cast<float*>(job_.confidence) + line * job_.upsampling.columns.n_out;
        scatter_probabilities<kOutputs>(best, pixels, first, offset, confidence);
      }
    }
  }

  const ArgmaxJob& job_;
  const Scores& scores_;
  const Cells<float> rows_, columns_;
  const int part_cells_;  // a multiple of kLanes
  const int length_;      // of a source row's part: its cells' points and one more, padded
  const int64_t parts_;
  const PointTable points_;
  const ExactArgmax<float> exact_;
  const size_t thread_bytes_;
  const Scratch storage_;
};

void exact_rows(const ArgmaxJob& job) {
  const ExactArgmax<double> exact(job);
  const int64_t height = job.upsampling.rows.n_out, lines = job.upsampling.scores.n * height;
  for_each(lines, job.threads, [&](int64_t line, int thread) {
    exact.row(thread, line / height, line % height, 0, job.upsampling.columns.n_out);
  });
}

}  // namespace

int argmax_threads(const Upsampling& upsampling, int threads) {
  const int64_t outputs = upsampling.scores.n * upsampling.rows.n_out * upsampling.columns.n_out;
  const int64_t most = outputs * upsampling.scores.c / kMinWork;
  return most < 1 ? 1 : most < threads ? static_cast<int>(most) : threads;
}

void argmax_rows(const ArgmaxJob& job) {
  if (job.upsampling.scores.type == DType::kF64)
    exact_rows(job);
  else
    FastArgmax(job).run();
}

}  // namespace fcnkern::FCNKERN_ISA
