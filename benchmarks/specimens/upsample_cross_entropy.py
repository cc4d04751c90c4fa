"""Compiled specimens of upsample_cross_entropy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from unittest import mock

import torch

from benchmarks.specimen import ARCHS, Case, Claims, Specimen

Shape = tuple[int, int, int, int, int]
CITY: Shape = (8, 19, 128, 256, 8)  # N, C, h, w, factor
SHAPES: dict[str, Shape] = {
    "binary ×2": (8, 2, 256, 256, 2),
    "ade ×4": (8, 150, 128, 256, 4),
    "city ×8": CITY,
    "voc ×8": (16, 21, 64, 64, 8),
    "voc ×16": (16, 21, 32, 32, 16),
    "voc ×32": (16, 21, 16, 16, 32),
}
RESIDENT_WARPS = 132 * 12
BANDS = {"binary ×2": 22, "ade ×4": 22, "city ×8": 22, "voc ×8": 33, "voc ×16": 33, "voc ×32": 17}


def _loss(
    shape: Shape, labels: torch.dtype = torch.uint8, full_size: bool = False, weighted: bool = False
) -> None:
    from fcnkern import Resample
    from fcnkern.backends.triton import _loss_cells
    from fcnkern.backends.triton.upsample_cross_entropy import upsample_cross_entropy_fwd
    from fcnkern.ops._loss_call import LossCall

    n, classes, h, w, factor = shape
    resample = Resample.identity() if full_size else Resample.half_pixel()
    call = LossCall(resample, 255, 0.0, "valid", (), 1, None, True, False, False)
    scores = torch.empty(n, classes, h * factor, w * factor) if full_size else torch.empty(n, classes, h, w)
    target = torch.empty(n, h * factor, w * factor, dtype=labels)
    class_weight = torch.empty(classes) if weighted else None
    with mock.patch.object(_loss_cells, "_resident_warps", return_value=RESIDENT_WARPS):
        upsample_cross_entropy_fwd(scores, target, None, class_weight, None, None, call)


SHARES = {"if tl.max(worst": 0.0, "if usable <= 0": 0.0, "if usable < 0": 0.0}


def _case(shape: Shape, label_bytes: int = 1, weighted: bool = False) -> Case:
    """Scores and labels read, gradients written once; per class and part of a cell 6 exponentials (8 where the twist
    takes one too), per pixel a reciprocal and half a logarithm, a whole one with weights.
    """
    n, classes, h, w, factor = shape
    slots = min(factor, 8)
    pixels = n * h * w * factor**2
    functions = pixels * (classes * (6 if slots > 3 else 8) / slots**2 + (2 if weighted else 1.5))
    size = f"{n}×{classes}, {h}×{w} → {h * factor}×{w * factor}"
    return Case(
        size,
        unit="pixel-class",
        units=pixels * classes,
        bytes=8 * n * classes * h * w + label_bytes * pixels,
        exponentials=functions,
    )


def _trips(name: str, weighted: bool) -> dict[int, tuple[float, ...]]:
    """Of the loops of the cell kernel: maxima (4 classes at once, then the rest), rows of cells and in them maxima,
    rows of labels, a report, exponentials, with weights rows of pixels, moments; none for cells without pixels and
    for steep cells.
    """
    _, classes, h, _, factor = SHAPES[name]
    maxima = (classes // 4, classes % 4)
    parts = -(-factor // 8)
    rows = (h + 1) * parts
    labels = factor * h / rows
    finish = (min(factor, 8),) if weighted else ()
    work = (*maxima, rows / BANDS[name], *maxima, labels, 0, 0, classes, *finish, classes)
    return {80: (*work, *(0,) * 8), 90: (*work, *(0,) * 9), 100: (*work, *(0,) * 9)}


def _cells(
    name: str, archs: Sequence[int] = ARCHS, labels: torch.dtype = torch.uint8, weighted: bool = False
) -> Specimen:
    kind = str(labels).removeprefix("torch.") + (" labels, class weights" if weighted else " labels")
    return Specimen(
        name=f"loss and gradient, {name}, {kind}",
        launch=partial(_loss, SHAPES[name], labels, weighted=weighted),
        kernel="_upsample_cross_entropy_cells_kernel",
        case=_case(SHAPES[name], labels.itemsize, weighted),
        trips=_trips(name, weighted),
        shares=SHARES,
        claims=Claims(max_registers=200, wide=("t_n", "t_h")),
        archs=archs,
    )


SPECIMENS = [
    _cells("city ×8"),
    _cells("city ×8", (90,), torch.int64),
    _cells("city ×8", (90,), weighted=True),
    _cells("voc ×8", ()),
    _cells("binary ×2", (90,)),
    _cells("ade ×4"),
    _cells("voc ×16", (90,)),
    _cells("voc ×32", (100,)),
    Specimen(
        name="borders and scale, city ×8",
        launch=partial(_loss, CITY),
        kernel="_upsample_cross_entropy_finish_kernel",
        case=Case("8×19×128×256", unit="element", units=8 * 19 * 128 * 256, bytes=8 * 8 * 19 * 128 * 256),
        claims=Claims(max_registers=80, wide=("g_n", "g_h")),
    ),
    Specimen(
        name="scores at full size, city",
        launch=partial(_loss, CITY, full_size=True),
        kernel="_upsample_cross_entropy_pixels_kernel",
        case=Case(
            "8×19×1024×2048",
            unit="pixel-class",
            units=8 * 19 * 1024 * 2048,
            bytes=8 * 1024 * 2048 * (8 * 19 + 1),
            exponentials=8 * 1024 * 2048 * (2 * 19 + 2),
        ),
        trips=(4, 3, 4, 3, 0, 0, 19),
        shares={"if tl.max(wrong": 0.0},
        claims=Claims(max_registers=48, wide=("t_n", "t_h", "s_n", "s_h")),
    ),
]
