"""Counts of label maps and of upsampled scores, at the shapes of the Triton specimens."""

from __future__ import annotations

from benchmarks.cuda_specimens.upsample_argmax import PARTS, TILE_SHARES, TILE_TRIPS, TILES
from benchmarks.specimen import Case, CudaSpecimen
from benchmarks.specimens.confusion_matrix import _NEW_PAIRS
from benchmarks.specimens.upsample_argmax import _PIXELS, _POINTS, CITY

_BLOCKS = 3 * 132  # as many as are held at once
_BINS = 19 * 19
_STEPS = _PIXELS / (256 * 16)


def _bin_trips(copies: int) -> dict[str, float]:
    """Of the loops that clear the bins of a block and add them to the counts."""
    return {
        "i < number_ * copies_": _BINS * copies / 256,
        "bin < number_; bin += kCountThreads": 12 / 8,  # 12 times 32 bins
        "i < copies_; ++i": copies,
    }


_PAIR_SHARES = {
    "void begin_run(": (1 + 15 * _NEW_PAIRS) / 16,  # the first pair of a piece begins a run
    "const auto index = static_cast<unsigned long long>(pixel()) + 1;": 0.0,
    "atomicExch(truth < classes": 0.0,
    "else atomicAdd(counts_ + bin": 0.0,
    "const auto index = static_cast<int64_t>(wrong) - 1;": 0.0,
    "LabelReport{words}.tell(": 0.0,
}

SPECIMENS = [
    CudaSpecimen(
        name="label maps, uint8",
        kernel="confusion_matrix_labels_fwd_kernel<16>",
        case=Case("8×1024×2048", unit="pixel", units=_PIXELS, bytes=2 * _PIXELS),
        blocks=_STEPS / 4,
        shared=_BINS * 8 * 4,
        trips={
            **_bin_trips(8),
            "first < end; first += kCountThreads * kPixels": 4,
            "pixel < last; ++pixel": 0,
        },
        shares={**_PAIR_SHARES, "} else {": 0.0},
        widths={"__ldg(source), more": 128},
        triton=["label maps, uint8"],
    ),
    CudaSpecimen(
        name="scores, C=19",
        kernel="confusion_matrix_scores_fwd_kernel<float>",
        case=Case(CITY, unit="pixel", units=_PIXELS, bytes=19 * 4 * _POINTS + _PIXELS),
        blocks=_BLOCKS,
        shared=8192 + _BINS * 4 * 4,
        trips={
            **_bin_trips(4),
            **TILE_TRIPS,
            "i < shape.tiles; i += gridDim.x": TILES / _BLOCKS,
            "item < table.parts * kPieces << row_bits": (0, PARTS * 8 * 16 / 256),
            "i < min(kPixels, table.columns - x)": 0,
        },
        shares={
            **TILE_SHARES,
            **_PAIR_SHARES,
            "else if (has_patterns) count_patterns<4>(": 0.0,
            "case LabelType::kI16: return": 0.0,
            "case LabelType::kI32: return": 0.0,
            "default: return static_cast<const int64_t*>(data)[place]": 0.0,
        },
        triton=["scores, decided cells", "scores, undecided cells", "argmax of the points, C=19"],
    ),
]
