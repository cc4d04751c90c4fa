"""Transposed convolutions, at the shapes of the Triton specimens."""

from __future__ import annotations

from benchmarks.specimen import CudaSpecimen
from benchmarks.specimens.upsample_add import (
    FEATURES,
    FULL,
    LARGE,
    C,
    N,
    _full_case,
    _scored_case,
)

_CELLS = LARGE // 2 + 2
_TILES = -(-(_CELLS**2) // 128)
_CHUNKS = -(-C // 16)
_BOTH = 1 - 3 / _CELLS
"""Share of the warps in which some cell has no pixel of x: one of the last three of a row."""

_COLUMNS = -(-N * C * FULL // 128)
_BANDS = -(-132 * 16 // _COLUMNS)

SPECIMENS = [
    CudaSpecimen(
        name="forward, dense ×2, features scored, fp32",
        kernel="upsample_add_product_fwd_kernel<float, 24>",
        case=_scored_case(4),
        blocks=_TILES * N * 2,
        trips={
            "first < p.features; first += kChunk": FEATURES / 16,
            "k < kChunk * CB; k += kUpsampleThreads": 16 * 24 / 128,
            "first + k < p.features; k += 4": 4,
            "ky < p.kernel[0]": (0, 2),
            "kx < p.kernel[1]": (0, 2),
            "first < p.inputs; first += kChunk": _CHUNKS,
            "k < kChunk * kPair * CB": 16 * 2 * 24 / 128,
            "first + k < p.inputs; ++k": (_BOTH * C / _CHUNKS, C / _CHUNKS),
        },
        shares={
            "if (stride == 1 && first + 4 <= channels": 0.0,
            "else add_own_channels<T, CB>": 0.0,
            "if (scores) value = fmaf(": 0.0,
        },
        widths={"*reinterpret_cast<const Four*>(own)": 128},
        triton=["forward, dense ×2, features scored, fp32"],
    ),
    CudaSpecimen(
        name="forward, bilinear ×8, fp32",
        kernel="upsample_add_walk_fwd_kernel<float, true>",
        case=_full_case(4),
        blocks=_COLUMNS * _BANDS,
        trips={"row < end; ++row": (0, FULL / _BANDS / 4)},
        shares={"if (p.skip.data != nullptr)": 0.0, "if (ky == stride)": 1 / 8},
        triton=["forward, bilinear ×8, fp32"],
    ),
]
