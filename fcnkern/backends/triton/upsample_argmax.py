"""`upsample_argmax` with the Triton kernels."""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from fcnkern.backends._bands import LearnedUpsampling
from fcnkern.backends.triton import _argmax_plan as plans
from fcnkern.backends.triton._launch import INTERPRETED, index_type, on_device
from fcnkern.backends.triton._upsample_argmax_kernels import (
    _upsample_argmax_cells_fwd_kernel,
    _upsample_argmax_confidence_fwd_kernel,
    _upsample_argmax_decided_fwd_kernel,
)
from fcnkern.resample import Pair, Resample

_ROWS_OF_PARTS = 8 if INTERPRETED else 2
_WIDEST = 16
WARP_COLUMNS = 256


def upsample_argmax(
    scores: Tensor,
    weight: Tensor | None,
    resample: Resample,
    size: Pair,
    out_dtype: torch.dtype,
    confidence: bool,
) -> tuple[Tensor, Tensor | None]:
    """(labels, softmax probability of the label or None), both (N, H, W) for ``size`` (H, W).

    Scores are upsampled in fp32 and never stored upsampled, save in bands of rows with a learned ``weight``. Ties
    go to the lowest class; NaN counts as the largest score, the first one wins.

    Raises:
        ValueError: too many classes.
    """
    shape = (scores.shape[0], *size)
    labels = torch.empty(shape, dtype=out_dtype, device=scores.device)
    probability = torch.empty(shape, dtype=torch.float32, device=scores.device) if confidence else None
    if labels.numel() == 0:
        return labels, probability
    with on_device(scores):
        if weight is None:
            upsample_argmax_fwd(scores, resample, labels, probability)
        else:
            _learned(scores, weight, resample, labels, probability)
    return labels, probability


def _learned(
    scores: Tensor, weight: Tensor, resample: Resample, labels: Tensor, probability: Tensor | None
) -> None:
    from fcnkern.backends.triton import upsample_add

    size = (labels.shape[1], labels.shape[2])
    for band in LearnedUpsampling(upsample_add, scores, weight, resample, size).bands():
        images = slice(band.image, band.image + 1)
        rows = slice(band.first_row, band.first_row + band.scores.shape[2])
        part = None if probability is None else probability[images, rows]
        upsample_argmax_fwd(band.scores, Resample.identity(), labels[images, rows], part)


def upsample_argmax_fwd(
    scores: Tensor, resample: Resample, labels: Tensor, probability: Tensor | None = None
) -> None:
    """Fills contiguous ``labels`` (N, H, W) of any integer type, and ``probability``, on the current device.

    Raises:
        ValueError: too many classes.
    """
    plan = plans.plan(scores, resample, (labels.shape[1], labels.shape[2]))
    if resample.kind == "identity":
        plans.launch_labels(scores, labels)
    elif plan.upsamples:
        undecided = plans.launch_points(plan)
        _launch_decided(plan, undecided, labels)
        _launch_cells(plan, undecided, labels)
    else:
        _launch_cells(plan, None, labels)
    if probability is not None:
        _launch_confidence(plan, labels, probability)


def _launch_decided(plan: plans.Plan, undecided: plans.Undecided, labels: Tensor) -> None:
    n, height, width = labels.shape
    unit = math.gcd(width, _WIDEST)
    block = max(WARP_COLUMNS, min(1024, triton.next_power_of_2(width)))
    blocks = triton.cdiv(width, block)
    grid = (n * triton.cdiv(plan.rows, _ROWS_OF_PARTS), blocks)
    _upsample_argmax_decided_fwd_kernel[grid](
        undecided.codes, labels, undecided.entries, undecided.counter, plan.y.first, plan.y.counts,
        plan.x.counts, plan.columns.point, *plan.scores.shape[2:], height, width // unit, plan.rows,
        plan.parts, plan.y.parts, plan.x.parts, plan.zero, _ROWS_OF_PARTS, block,
        triton.next_power_of_2(triton.cdiv(plan.parts, blocks)), unit, num_warps=block // WARP_COLUMNS,
    )  # fmt: skip


def _launch_cells(plan: plans.Plan, undecided: plans.Undecided | None, labels: Tensor) -> None:
    codes, entries, counter = (labels, labels, labels) if undecided is None else undecided
    blocks = triton.cdiv(plan.cell_parts, plans.LANES // plans.lanes(plan))
    grid = (min(blocks, plans.resident_warps(labels.device)),)
    _upsample_argmax_cells_fwd_kernel[grid](
        plan.scores, codes, labels, entries, counter, plan.y.first, plan.y.counts, plan.y.start,
        plan.x.first, plan.x.counts, plan.x.start, *plan.scores.stride(), plan.cell_parts,
        *plan.scores.shape[1:], *labels.shape[1:], plan.rows, plan.parts, plan.y.step, plan.x.step,
        plan.y.parts, plan.x.parts, plan.zero, plan.skip_zero, undecided is not None, plans.lanes(plan),
        plan.y.slots, plans.LANES, num_warps=1,
    )  # fmt: skip


def _launch_confidence(plan: plans.Plan, labels: Tensor, probability: Tensor) -> None:
    n, height, width = labels.shape
    block = max(128, plans.LANES)
    columns = n * plan.rows * width
    _upsample_argmax_confidence_fwd_kernel[(triton.cdiv(columns, block),)](
        plan.scores, labels, probability, plan.y.first, plan.y.counts, plan.y.start, plan.columns.point,
        plan.columns.fraction, *plan.scores.stride(), columns, *plan.scores.shape[1:], height, width,
        plan.rows, plan.y.step, plan.y.parts, plan.zero, plan.skip_zero, index_type(columns + block),
        plan.y.slots, block, num_warps=4,
    )  # fmt: skip
