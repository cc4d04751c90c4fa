"""`confusion_matrix` with the Triton kernels."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from fcnkern.backends._label_plan import can_ignore
from fcnkern.backends._labels import label_flag, raise_reported
from fcnkern.backends._limits import check_classes
from fcnkern.backends.triton import _argmax_plan as plans
from fcnkern.backends.triton._confusion_matrix_kernels import (
    RUN,
    _confusion_matrix_cells_fwd_kernel,
    _confusion_matrix_decided_fwd_kernel,
    _confusion_matrix_labels_fwd_kernel,
)
from fcnkern.backends.triton._launch import index_type, on_device
from fcnkern.resample import Resample

_MOST_COPIES = 64
_MOST_COUNTS = 1 << 19
_ROWS_OF_PARTS = 8


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, resample: Resample | None, ignore_index: int | None
) -> Tensor:
    """Counts [truth, prediction], int64 (num_classes, num_classes), over the pixels that are not ignored.

    ``prediction`` is a label map like ``target`` (N, H, W), or, with ``resample``, scores (N, C, h, w).

    Memory: up to 64 copies of the matrix, 4 MiB at most where there are several; with ``resample`` also 4 bytes
    a source point and 8 a cell. A label out of range, of the target or of the prediction at a counted pixel, is left
    out and raises at the next call.

    Raises:
        ValueError: too many classes; an earlier call on this device met a label out of range.
    """
    check_classes("Triton", "num_classes", num_classes)
    copies = max(1, min(_MOST_COPIES, _MOST_COUNTS // num_classes**2))
    counts = torch.zeros(copies, num_classes, num_classes, dtype=torch.int64, device=target.device)
    if target.numel() > 0:
        with on_device(target):
            if resample is None:
                _count_labels(prediction, target, counts, ignore_index)
            else:
                _count_scores(prediction, target, counts, resample, ignore_index)
        if target.device.type == "cpu":
            raise_reported(target.device)
    return counts[0] if copies == 1 else counts.sum(0)


def _count_labels(prediction: Tensor, target: Tensor, counts: Tensor, ignore_index: int | None) -> None:
    copies, classes, _ = counts.shape
    target_flag = label_flag("target", target, classes, ignore_index)
    prediction_flag = label_flag("prediction", prediction, classes, None)
    block = max(128, plans.LANES)
    tile, pixels = block * RUN.value, target.numel()
    programs = min(triton.cdiv(pixels, tile), max(1, plans.resident_warps(target.device) // 4))
    span = triton.cdiv(pixels, programs * tile) * tile
    _confusion_matrix_labels_fwd_kernel[(triton.cdiv(pixels, span),)](
        prediction, target, counts, prediction_flag, target_flag, pixels, span, *target.shape[1:],
        *prediction.stride(), *target.stride(), classes,
        ignore_index if can_ignore(target, ignore_index) else 0, copies, can_ignore(target, ignore_index),
        prediction.is_contiguous(), target.is_contiguous(), index_type(pixels + span),
        index_type(classes**2), block, num_warps=4,
    )  # fmt: skip


def _count_scores(
    scores: Tensor, target: Tensor, counts: Tensor, resample: Resample, ignore_index: int | None
) -> None:
    flag = label_flag("target", target, counts.shape[1], ignore_index)
    plan = plans.plan(scores, resample, (target.shape[1], target.shape[2]))
    undecided = None
    if plan.upsamples:
        undecided = plans.launch_points(plan)
        _launch_decided(plan, undecided, target, counts, flag, ignore_index)
    _launch_cells(plan, undecided, target, counts, flag, ignore_index)


def _launch_decided(
    plan: plans.Plan,
    undecided: plans.Undecided,
    target: Tensor,
    counts: Tensor,
    flag: Tensor,
    ignore_index: int | None,
) -> None:
    n, height, width = target.shape
    block = plans.LANES
    blocks = triton.cdiv(width, block)
    grid = (n * triton.cdiv(plan.rows, _ROWS_OF_PARTS), blocks)
    _confusion_matrix_decided_fwd_kernel[grid](
        undecided.codes, target, counts, undecided.entries, undecided.counter, flag, plan.y.first,
        plan.y.counts, plan.x.counts, plan.columns.point, *plan.scores.shape[2:], height, width,
        *target.stride(), plan.rows, plan.parts, counts.shape[1],
        ignore_index if can_ignore(target, ignore_index) else 0, counts.shape[0], plan.y.parts, plan.x.parts,
        plan.zero, can_ignore(target, ignore_index), index_type(counts.shape[1] ** 2), plan.y.slots,
        _ROWS_OF_PARTS, block, triton.next_power_of_2(triton.cdiv(plan.parts, blocks)), num_warps=1,
    )  # fmt: skip


def _launch_cells(
    plan: plans.Plan,
    undecided: plans.Undecided | None,
    target: Tensor,
    counts: Tensor,
    flag: Tensor,
    ignore_index: int | None,
) -> None:
    codes, entries, counter = (counts, counts, counts) if undecided is None else undecided
    blocks = triton.cdiv(plan.cell_parts, plans.LANES // plans.lanes(plan))
    grid = (min(blocks, plans.resident_warps(target.device)),)
    _confusion_matrix_cells_fwd_kernel[grid](
        plan.scores, codes, target, counts, entries, counter, flag, plan.y.first, plan.y.counts,
        plan.y.start, plan.x.first, plan.x.counts, plan.x.start, *plan.scores.stride(), *target.stride(),
        plan.cell_parts, *plan.scores.shape[1:], *target.shape[1:], plan.rows, plan.parts, plan.y.step,
        plan.x.step, ignore_index if can_ignore(target, ignore_index) else 0, counts.shape[0], plan.y.parts,
        plan.x.parts, plan.zero, plan.skip_zero, can_ignore(target, ignore_index),
        index_type(counts.shape[1] ** 2), undecided is not None, plans.lanes(plan), plan.y.slots,
        plans.LANES, num_warps=1,
    )  # fmt: skip
