"""The skinny product, at the shape of the Triton specimens."""

from __future__ import annotations

import torch

from benchmarks.specimen import Case, CudaSpecimen
from benchmarks.specimens.conv1x1 import CITY, FC7, _case, _name

_N, _INPUTS, _OUTPUTS, _H, _W = CITY
_BLOCKS = _N * _H * _W // 128
_PLACES = 3 * 128 * 8
_STAGES = 3
_ROWS = (288 + 2 * 35) / (288 + 3 * 35 + 33)
"""Share of the instructions for four of the depth that run with 10 rows of a thread, where 8 to 12 may."""
_COPIES = {"if (bytes == 16) start(": 128}


def _trips(tiles: int, small: float) -> dict[str, float | tuple[float, ...]]:
    """Of the loops; `small`: copies of the small factor that a thread starts for one tile."""
    return {
        "int tile = 1 - kStages": tiles + _STAGES - 1,
        "line < kLines; line += kStep": 0,
        "int row = first; row < rows": small,
        "int k = threadIdx.x / kWarp; k < kDepth": 0,
        "int row = lane; row < rows; row += kWarp": 0,
        "line < lines; line += blockDim.x": _OUTPUTS / 4,
        "i < line_length; i += kWarp": 1,
        "for (int i = 0; i < 4; ++i) {": 0,
    }


def _shares(tiles: int) -> dict[str, float]:
    run = tiles / (tiles + _STAGES - 1)
    return {
        "if (left >= 0) start(": run,
        "if (tile >= 0) {": run,
        "const unsigned kept = kept_elements(": 0.0,
        "values[i] = kept >> i & 1 ?": 0.0,
        "else if (sizeof(T) == 4 || bytes > 2) start(": 0.0,
        "else start(std::integral_constant<int, sizeof(T)>": 0.0,
        "if (p_.small_rows_fast) start_small_rows": 0.0,
        "if (i < count) base[at[i]] =": 0.0,
    }


_PASSED = FC7[0] * FC7[2] * FC7[3] * FC7[4]  # elements

SPECIMENS = [
    CudaSpecimen(
        name=_name("forward, 512→19", torch.bfloat16, False),
        kernel="conv1x1_mma_kernel<__nv_bfloat16, __nv_bfloat16, true, false>",
        case=_case(CITY, torch.bfloat16),
        blocks=_BLOCKS,
        shared=_PLACES + 2 * 64 * 8 + _STAGES * (64 * 136 + 24 * 72) * 2,
        trips=_trips(512 // 64, 1.25),
        shares={**_shares(512 // 64), "for (int e = 0; e < kEights; ++e) {": 3 / 8},
        widths=_COPIES,
        tensor_cores=True,
        triton=[_name("forward, 512→19", torch.bfloat16, False)],
    ),
    CudaSpecimen(
        name=_name("forward, 512→19", torch.float32, False),
        kernel="conv1x1_fma_kernel<true, false>",
        case=_case(CITY, torch.float32),
        blocks=_BLOCKS,
        shared=_PLACES + 2 * 32 * 8 + _STAGES * (32 * 132 + 20 * 36) * 4,
        trips={**_trips(512 // 32, 1.25), "k < depth; k += 4 * parts": 2, "adding < parts": 4},
        shares={
            **_shares(512 // 32),
            "for (int r = 0; r < kMostRows; ++r) {": _ROWS,
            "if (part == adding) {": 1 / 4,
        },
        widths=_COPIES,
        triton=[_name("forward, 512→19", torch.float32, False)],
    ),
    CudaSpecimen(
        name="bias, ReLU and dropout in place, 4096, bfloat16, NCHW",
        kernel="conv1x1_epilogue_kernel<__nv_bfloat16>",
        case=Case("16×4096×16×16", unit="element", units=_PASSED, bytes=4 * _PASSED),
        blocks=_PASSED / (128 * 64),
        trips={
            "i < tile.pixels; i += kPassThreads": (4 / 8, 0),
            "line < lines; line += blockDim.x": 64 / 8,
            "i < line_length; i += kWarp": 1,
            "for (int i = 0; i < 4; ++i) {": 4,
        },
        shares={
            "if (block != formed) {": 1 / 4,
            "values[i] = i < count ? to_float(": 0.0,
            "if (i < count) base[at[i]] =": 0.0,
        },
        widths={"= *reinterpret_cast<const Word*>(base": 64, "*reinterpret_cast<Word*>(base": 64},
    ),
]
