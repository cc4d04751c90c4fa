// Writes the label map of upsampled scores; argmax_rows computes it.
#include "upsample_argmax.h"

#include "argmax_rows.h"

namespace fcnkern::FCNKERN_ISA {
namespace {

struct Output {
  const UpsampleArgmaxParams& params;
  bool wide;
};

template <class From, class To>
void copy(const From* from, To* to, int count) {
  for (int i = 0; i < count; ++i) to[i] = static_cast<To>(from[i]);
}

template <class To>
void write(const Output& output, const LabelRows& rows) {
  const Upsampling& plan = output.params.upsampling;
  for (int row = 0; row < rows.rows; ++row) {
    const char* from = rows.labels + row * rows.row_bytes;
    const int64_t line = rows.n * plan.rows.n_out + rows.y + row;
    To* to = static_cast<To*>(output.params.labels) + line * plan.columns.n_out + rows.x;
    if (output.wide)
      copy(reinterpret_cast<const uint16_t*>(from), to, rows.width);
    else
      copy(reinterpret_cast<const uint8_t*>(from), to, rows.width);
  }
}

void take(void* context, int, const LabelRows& rows) {
  const Output& output = *static_cast<const Output*>(context);
  switch (output.params.label_type) {
    case LabelType::kU8: return write<uint8_t>(output, rows);
    case LabelType::kI16: return write<int16_t>(output, rows);
    case LabelType::kI32: return write<int32_t>(output, rows);
    case LabelType::kI64: return write<int64_t>(output, rows);
  }
}

}  // namespace

void upsample_argmax(const UpsampleArgmaxParams& params) {
  const int threads = argmax_threads(params.upsampling, params.threads);
  Output output{params, params.upsampling.scores.c > kByteClasses};
  argmax_rows({params.upsampling, params.confidence, threads, {&take, &output}});
}

}  // namespace fcnkern::FCNKERN_ISA
