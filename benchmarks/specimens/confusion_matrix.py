"""Compiled specimens of confusion_matrix."""

from __future__ import annotations

from functools import partial
from unittest import mock

import torch

from benchmarks.specimen import Case, Claims, Specimen
from benchmarks.specimens.upsample_argmax import (
    _PIXELS,
    _POINTS,
    _UNDECIDED,
    CELL_SHARES,
    CELL_TRIPS,
    CITY,
)


def _labels(dtype: torch.dtype = torch.uint8) -> None:
    from fcnkern.backends.triton import _argmax_plan
    from fcnkern.backends.triton.confusion_matrix import confusion_matrix

    maps = torch.empty(2, 8, 1024, 2048, dtype=dtype)
    with mock.patch.object(_argmax_plan, "resident_warps", return_value=132 * 32):
        confusion_matrix(maps[0], maps[1], 19, None, 255)


def _scores() -> None:
    from fcnkern import Resample
    from fcnkern.backends.triton import _argmax_plan
    from fcnkern.backends.triton.confusion_matrix import confusion_matrix

    scores, target = torch.empty(8, 19, 128, 256), torch.empty(8, 1024, 2048, dtype=torch.uint8)
    with mock.patch.object(_argmax_plan, "resident_warps", return_value=132 * 32):
        confusion_matrix(scores, target, 19, Resample.half_pixel(), 255)


_NEW_PAIRS = 0.35
"""Share of the 32 × 8 outputs of a warp in which some column has a new pair."""

SPECIMENS = [
    Specimen(
        name="label maps, uint8",
        launch=_labels,
        kernel="_confusion_matrix_labels_fwd_kernel",
        case=Case("8×1024×2048", unit="pixel", units=_PIXELS, bytes=2 * _PIXELS),
        trips=(8, 0),
        shares={"if tl.max(wrong)": 0.0},
        claims=Claims(max_registers=48, loads={"exists, other=missing": 128}),
    ),
    Specimen(
        name="label maps, int64",
        launch=partial(_labels, torch.int64),
        kernel="_confusion_matrix_labels_fwd_kernel",
        case=Case("8×1024×2048", unit="pixel", units=_PIXELS, bytes=16 * _PIXELS),
        trips=(8, 0),
        shares={"if tl.max(wrong)": 0.0},
        claims=Claims(max_registers=96, loads={"exists, other=missing": 128}),
        archs=(90,),
    ),
    Specimen(
        name="scores, decided cells",
        launch=_scores,
        kernel="_confusion_matrix_decided_fwd_kernel",
        case=Case(CITY, unit="pixel", units=_PIXELS, bytes=4 * _POINTS + _PIXELS),
        trips=(8,),
        shares={"if tl.max((_uniform_bin": _NEW_PAIRS, "if tl.max(wrong)": 0.0},
        claims=Claims(max_registers=64, wide=("target_n", "target_y")),
    ),
    Specimen(
        name="scores, undecided cells",
        launch=_scores,
        kernel="_confusion_matrix_cells_fwd_kernel",
        case=Case(
            CITY,
            unit="pixel-class",
            units=_UNDECIDED * 19 * _PIXELS,
            bytes=_UNDECIDED * (19 * 4 * _POINTS + _PIXELS),
        ),
        trips=CELL_TRIPS,
        shares={**CELL_SHARES, "if tl.max(wrong)": 0.0},
        claims=Claims(max_registers=80, wide=("target_n", "target_y")),
    ),
]
