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
        kernel="upsample_add_taps_fwd_kernel<float>",
        case=_full_case(4),
        blocks=N * C * FULL * FULL / 4 / 128,
        trips={"ky < d.kernel[0]": 2, "kx < d.kernel[1]": 2},
        shares={
            "return element<T>(p.weight": 0.0,
            "if (p.skip.data != nullptr)": 0.0,
            "if (k < count) at[k * step] = out.value[k];": 0.0,
        },
        widths={"*reinterpret_cast<Run*>(at) = out;": 128},
        triton=["forward, bilinear ×8, fp32"],
    ),
]
