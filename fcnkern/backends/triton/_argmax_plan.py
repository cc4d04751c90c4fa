"""What the launchers of the label map's kernels share: the geometry and the arguments that follow from it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcnkern.backends.triton._axes import Cells, Taps, cells, taps
from fcnkern.backends.triton._launch import INTERPRETED
from fcnkern.backends.triton._upsample_argmax_kernels import _upsample_argmax_points_fwd_kernel
from fcnkern.resample import Pair, Resample

MAX_CLASSES = 65534
"""Labels have 16 bits in the kernels."""

WARP = 32

LANES = 1024 if INTERPRETED else WARP
"""Lanes of a program whose branches should be those of few cells: a warp; in the interpreter few programs count."""


class Plan(NamedTuple):
    """Scores (N, C, h, w) and how they become (H, W) labels."""

    scores: Tensor
    size: Pair
    y: Cells
    x: Cells
    columns: Taps
    zero: bool
    skip_zero: bool

    @property
    def rows(self) -> int:
        """Rows of cell parts of an image."""
        return (self.scores.shape[2] + 1) * self.y.parts

    @property
    def parts(self) -> int:
        """Cell parts of such a row."""
        return (self.scores.shape[3] + 1) * self.x.parts

    @property
    def cell_parts(self) -> int:
        """Cell parts of all images."""
        return self.scores.shape[0] * self.rows * self.parts

    @property
    def upsamples(self) -> bool:
        """Whether there are more outputs than points, so that the argmax of the points saves work."""
        return self.size[0] * self.size[1] > self.scores.shape[2] * self.scores.shape[3]

    @property
    def lanes(self) -> int:
        """Lanes that a cell part takes."""
        return triton.next_power_of_2(self.x.slots)


def plan(scores: Tensor, resample: Resample, size: Pair) -> Plan:
    """The plan of a call.

    Raises:
        ValueError: too many classes.
    """
    check_classes("scores", scores.shape[1])
    rows, columns = resample.axes((scores.shape[2], scores.shape[3]), size)
    device = scores.device
    tables = cells(rows, device), cells(columns, device), taps(columns, device)
    return Plan(scores, size, *tables, rows.zero, resample.kind in {"deconv", "identity"})


def check_classes(name: str, classes: int) -> None:
    """Refuses more classes than 16-bit labels hold beside a marker."""
    if classes > MAX_CLASSES:
        raise ValueError(f"{name}: the Triton kernels take at most {MAX_CLASSES} classes, got {classes}")


def index_type(count: int) -> tl.dtype:
    """The type of indices below ``count``."""
    return tl.int32 if count < 1 << 31 else tl.int64


@lru_cache(maxsize=16)
def resident_warps(device: torch.device) -> int:
    """About as many one-warp programs as the device runs at once; a few in the interpreter."""
    if INTERPRETED:
        return 3
    properties: Any = torch.get_device_module(device).get_device_properties(device)
    return 32 * getattr(properties, "multi_processor_count", 64)


class Undecided(NamedTuple):
    """The codes of the points, and room for the list of undecided cell parts and its length."""

    codes: Tensor
    entries: Tensor
    counter: Tensor


def launch_points(given: Plan) -> Undecided:
    """Takes the argmax of every source point."""
    scores, device = given.scores, given.scores.device
    n, _, h, w = scores.shape
    found = Undecided(
        torch.empty(n, h, w, dtype=torch.int32, device=device),
        torch.empty(given.cell_parts, dtype=torch.int64, device=device),
        torch.empty(1, dtype=torch.int32, device=device),
    )
    _points(scores, found.codes, found.counter, False, given.skip_zero)
    return found


def launch_labels(scores: Tensor, labels: Tensor) -> None:
    """Fills contiguous ``labels`` (N, h, w) with the argmax of every point."""
    _points(scores, labels, labels, True, True)


def _points(scores: Tensor, result: Tensor, counter: Tensor, labels: bool, skip_zero: bool) -> None:
    n, classes, h, w = scores.shape
    flat = h == 1 or scores.stride(2) == w * scores.stride(3)
    split = 4 if scores.stride(1) == 1 and classes >= 4 else 1
    block = max(128, LANES)
    grid = (n * triton.cdiv(h * w, block // split),)
    _upsample_argmax_points_fwd_kernel[grid](
        scores,
        result,
        counter,
        h * w,
        w,
        classes,
        *scores.stride(),
        labels,
        skip_zero,
        flat,
        split,
        block,
        num_warps=4,
    )
