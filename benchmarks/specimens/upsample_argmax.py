"""Compiled specimens of upsample_argmax."""

from __future__ import annotations

from functools import partial
from unittest import mock

import torch

from benchmarks.specimen import Case, Claims, Specimen

CITY = "8×19, 128×256 → 1024×2048"
_POINTS, _PIXELS = 8 * 128 * 256, 8 * 1024 * 2048
_UNDECIDED = 0.15
"""Share of the cells where more than one class wins, as in street scenes."""


def _city(classes: int = 19, channels_last: bool = False, confidence: bool = False) -> None:
    from fcnkern import Resample
    from fcnkern.backends.triton import _argmax_plan
    from fcnkern.backends.triton.upsample_argmax import upsample_argmax

    layout = torch.channels_last if channels_last else torch.contiguous_format
    scores = torch.empty(8, classes, 128, 256).contiguous(memory_format=layout)
    with mock.patch.object(_argmax_plan, "resident_warps", return_value=132 * 32):
        upsample_argmax(scores, None, Resample.half_pixel(), (1024, 2048), torch.uint8, confidence)


def _case(unit: str, units: float, bytes_moved: float, exponentials: float = 0) -> Case:
    return Case(CITY, unit=unit, units=units, bytes=bytes_moved, exponentials=exponentials)


_BLOCKS = _UNDECIDED * 8 * 129 * 257 / 4 / (132 * 32)
"""Blocks of four cells that a program takes."""

CELL_TRIPS = (_BLOCKS, 1, 4, 0)
"""Blocks, chunks of classes, classes that are left in a chunk, classes of the exact path."""

CELL_SHARES = {"def _exact_winners": 0.0}
SPECIMENS = [
    Specimen(
        name="argmax of the points, C=19",
        launch=_city,
        kernel="_upsample_argmax_points_fwd_kernel",
        case=_case("point-class", 19 * _POINTS, (19 + 1) * 4 * _POINTS),
        trips=(1, 0, 3),
        claims=Claims(max_registers=40, wide=("stride_n",)),
    ),
    Specimen(
        name="argmax of the points, C=19, channels_last",
        launch=partial(_city, channels_last=True),
        kernel="_upsample_argmax_points_fwd_kernel",
        case=_case("point-class", 19 * _POINTS, (19 + 1) * 4 * _POINTS),
        trips=(0, 0),
        claims=Claims(max_registers=48, wide=("stride_n", "stride_x")),
        archs=(90,),
    ),
    Specimen(
        name="decided cells, uint8",
        launch=_city,
        kernel="_upsample_argmax_decided_fwd_kernel",
        case=_case("pixel", _PIXELS, 4 * _POINTS + _PIXELS),
        trips=(2, 2, 0),
        claims=Claims(max_registers=64),
    ),
    Specimen(
        name="undecided cells, C=19",
        launch=_city,
        kernel="_upsample_argmax_cells_fwd_kernel",
        case=_case("pixel-class", _UNDECIDED * 19 * _PIXELS, _UNDECIDED * (19 * 4 * _POINTS + _PIXELS)),
        trips=CELL_TRIPS,
        shares=CELL_SHARES,
        claims=Claims(max_registers=80, wide=("stride_n", "stride_c", "stride_y")),
    ),
    Specimen(
        name="confidence, C=19",
        launch=partial(_city, confidence=True),
        kernel="_upsample_argmax_confidence_fwd_kernel",
        case=_case("pixel-class", 19 * _PIXELS, 19 * 4 * _POINTS + 5 * _PIXELS, 19 * _PIXELS),
        trips=(19, 0),
        shares={"if tl.max(broken": 0.0},
        claims=Claims(max_registers=128, wide=("stride_n", "stride_c", "stride_y")),
    ),
]
