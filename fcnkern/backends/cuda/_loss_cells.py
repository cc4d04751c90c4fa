"""Launches the fused loss over cells, and what comes after it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fcnkern.backends._arguments import label_map, tensor_view
from fcnkern.backends._axes import Cells
from fcnkern.backends._labels import label_flag
from fcnkern.backends._loss_call import Pixels, limits_of
from fcnkern.backends._loss_grid import LossGrid
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.backends.cuda._structs import filled
from fcnkern.ops._checks import dense_format

LANES = 32
WARPS_PER_MULTIPROCESSOR = 11
EMULATED_WARPS = 4
SHARED_BYTES = 48 << 10
MOST_PARTS = 32


class Arguments:
    """`Pixels` as the kernels take them; keeps alive what they point to."""

    def __init__(self, pixels: Pixels, classes: int) -> None:
        call, target = pixels.call, pixels.target
        total = None
        if pixels.class_weight is not None and call.label_smoothing > 0:
            total = pixels.class_weight.sum()
        limits = limits_of(pixels.keep, target.device) if pixels.keep else None
        self.held = (pixels, total, limits)
        self.struct = filled(
            "LossPixels",
            target=label_map(target),
            classes=classes,
            height=target.shape[1],
            width=target.shape[2],
            ignore_index=call.ignore_index,
            class_weight=pixels.class_weight,
            total_weight=total,
            pixel_weight=pixels.pixel_weight,
            smoothing=call.label_smoothing,
            limits=limits,
            limit_per_class=pixels.sampling == 2,
            seed=pixels.seed,
            cell=call.cell,
            hard_losses=pixels.hard_losses,
            cuts=pixels.cuts,
            report=label_flag("target", target, classes, call.ignore_index),
        )


@lru_cache(maxsize=16)
def _resident_warps(device: torch.device) -> int:
    """Programs of one warp that run at once; few in the emulator, so that work is split there too."""
    if device.type == "cpu":
        return EMULATED_WARPS
    return WARPS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


def _axis(cells: Cells) -> Any:
    return filled(
        "LossAxis",
        first=cells.first,
        counts=cells.counts,
        start=cells.start,
        step=cells.step,
        parts=cells.parts,
    )


def _label_sums(pixels: Pixels, classes: int, slots: int, programs: int) -> Tensor | None:
    """Scratch for the labels' sums of all programs; None where they fit into shared memory."""
    planes = 1 if pixels.pixel_weight is None else 4
    words = (classes + 2) * LANES * planes
    factors = (
        slots * slots * LANES if pixels.pixel_weight is not None or pixels.class_weight is not None else 0
    )
    if 4 * (words + factors) <= SHARED_BYTES:
        return None
    return torch.zeros(programs * words, dtype=torch.int32, device=pixels.target.device)


def run_cells(scores: Tensor, pixels: Pixels) -> tuple[Tensor, Tensor | None, Tensor]:
    """(loss or map of losses, gradient, counts) for scores that a `Resample` upsamples.

    Scratch, beside the results: for the seams about the gradient's size divided by the rows of cells in a band, 2 C
    numbers per strip and row of cells for the rims, and where C exceeds some 300 the labels' sums.

    Raises:
        ValueError: upsampling by more than 256 times.
    """
    call, target, device = pixels.call, pixels.target, scores.device
    n, classes, h, w = scores.shape
    grid = LossGrid.of(scores, pixels, _resident_warps(device))
    if grid.x.parts > MOST_PARTS:
        raise ValueError(
            f"scores of width {w} are upsampled to {target.shape[2]}: the CUDA kernels take factors up to 256"
        )
    programs = grid.strips * grid.bands
    slots = next(size for size in (2, 4, 8) if size >= max(grid.y.slots, grid.x.slots))
    arguments = Arguments(pixels, classes)
    partials = torch.empty(3, programs, dtype=torch.float32, device=device)
    counts = _label_sums(pixels, classes, slots, programs)
    losses = None
    if call.reduction == "none":
        losses = torch.zeros(target.shape, dtype=torch.float32, device=device)
    grad = seam = rim = None
    if call.need_grad:
        grad = torch.empty_like(scores, dtype=torch.float32, memory_format=dense_format(scores))
        seam = torch.empty(programs * classes * LANES, dtype=torch.float32, device=device)
        rim = torch.empty(grid.strips * grid.rows * 2 * classes, dtype=torch.float32, device=device)
    parameters = filled(
        "LossCells",
        pixels=arguments.struct,
        scores=tensor_view(scores),
        height=h,
        width=w,
        y=_axis(grid.y),
        x=_axis(grid.x),
        slots=slots,
        zero=call.resample.kind == "deconv",
        steep=grid.steepest,
        gentle_twist=grid.y.step * grid.x.step < 1 / 15,
        lanes=n * grid.columns,
        columns=grid.columns,
        x_begin=grid.x_begin,
        y_begin=grid.y.begin,
        rows=grid.rows,
        band=grid.band,
        strips=grid.strips,
        bands=grid.bands,
        losses=losses,
        grad=grad,
        grad_stride=(0, 0, 0, 0) if grad is None else grad.stride(),
        seam=seam,
        rim=rim,
        partials=partials,
        counts=counts,
    )
    kernels.upsample_cross_entropy_cells(parameters, stream_of(scores))
    loss, scale, stats = total(partials, pixels.divisor)
    if grad is not None:
        _finish(grad, seam, rim, scale, grid)
    return loss if losses is None else losses, grad, stats


def total(partials: Tensor, divisor: float) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, scale of the reduction, counts) from the programs' partial sums."""
    loss, scale = (torch.empty((), dtype=torch.float32, device=partials.device) for _ in range(2))
    stats = torch.empty(2, dtype=torch.int64, device=partials.device)
    parameters = filled(
        "LossTotal",
        partials=partials,
        programs=partials.numel() // 3,
        divisor=divisor,
        loss=loss,
        scale=scale,
        stats=stats,
    )
    kernels.upsample_cross_entropy_total(parameters, stream_of(partials))
    return loss, scale, stats


def _finish(grad: Tensor, seam: Tensor | None, rim: Tensor | None, scale: Tensor, grid: LossGrid) -> None:
    """Completes the gradient in place."""
    n, classes, h, w = grad.shape
    parameters = filled(
        "LossFinish",
        grad=grad,
        grad_stride=grad.stride(),
        images=n,
        classes=classes,
        height=h,
        width=w,
        channels_last=not grad.is_contiguous(),
        seam=seam,
        rim=rim,
        scale=scale,
        columns=grid.columns,
        x_begin=grid.x_begin,
        x_end=grid.x.end,
        y_begin=grid.y.begin,
        y_end=grid.y.end,
        band=grid.band,
        strips=grid.strips,
        x_parts=grid.x.parts,
        y_parts=grid.y.parts,
    )
    kernels.upsample_cross_entropy_finish(parameters, stream_of(grad))
