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

_CELLS = LARGE // 2
_TILES = -(-(_CELLS**2) // 128)
_CHUNKS = -(-C // 16)
_CHANNELS = 4
"""Channels of a thread that walks."""
_COLUMNS = -(-N * -(-C // _CHANNELS) * FULL // 128)
_BANDS = -(-132 * 16 // _COLUMNS)

SPECIMENS = [
    CudaSpecimen(
        name="forward, dense ×2, features scored, fp32",
        kernel="upsample_add_product_fwd_kernel<float, 24>",
        case=_scored_case(4),
        blocks=_TILES * N * 2,
        trips={
            "int left = p.features; left > 0": FEATURES / 16,
            "k < min(kChunk, left); k += 4": 4,
            "ky < p.kernel[0]": (0, 2),
            "kx < p.kernel[1]": (0, 2),
            "int left = p.inputs; left > 0": _CHUNKS,
            "k < min(kChunk, left); ++k": C / _CHUNKS,
        },
        shares={
            "if (together) {": 0.0,
            "else add_own_channels<T, CB>": 0.0,
            "if (scores) value = fmaf(": 0.0,
        },
        widths={"*reinterpret_cast<const Four*>(at)": 128},
        triton=["forward, dense ×2, features scored, fp32"],
    ),
    CudaSpecimen(
        name="forward, bilinear ×8, fp32",
        kernel="upsample_add_walk_fwd_kernel<float, true, 4>",
        case=_full_case(4),
        blocks=_COLUMNS * _BANDS,
        trips={"row < end; ky = 0, ++i": FULL / 8 / _BANDS, "row < last; ++row": 8},
        shares={"if (p.skip.data != nullptr) {": 0.0},
        triton=["forward, bilinear ×8, fp32"],
    ),
]
