"""What the launchers of the label map's kernels share: plans, numbers of lanes, and the kernel of the points."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from fcnkern.backends import _label_plan
from fcnkern.backends._label_plan import Plan
from fcnkern.backends.triton._launch import INTERPRETED, multiprocessors
from fcnkern.backends.triton._upsample_argmax_kernels import _upsample_argmax_points_fwd_kernel
from fcnkern.resample import Pair, Resample

WARP = 32

LANES = 1024 if INTERPRETED else WARP
"""Lanes of a program whose branches should be those of few cells: a warp; in the interpreter few programs count."""


def plan(scores: Tensor, resample: Resample, size: Pair) -> Plan:
    """The plan of a call.

    Raises:
        ValueError: too many classes.
    """
    return _label_plan.plan("Triton", scores, resample, size)


def lanes(given: Plan) -> int:
    """Lanes that a cell part takes."""
    return int(triton.next_power_of_2(given.x.slots))


def resident_warps(device: torch.device) -> int:
    """About as many one-warp programs as the device runs at once; a few in the interpreter."""
    if INTERPRETED:
        return 3
    return 32 * multiprocessors(device)


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
        scores, result, counter, h * w, w, classes, *scores.stride(), labels, skip_zero, flat, split, block,
        num_warps=4,
    )  # fmt: skip
