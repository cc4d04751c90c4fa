"""Launches the fused loss over cells: how the work is divided, and what comes after it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcnkern.backends._labels import label_flag
from fcnkern.backends._loss_call import Pixels, given
from fcnkern.backends._loss_grid import LossGrid
from fcnkern.backends.triton._launch import INTERPRETED, multiprocessors
from fcnkern.backends.triton._upsample_cross_entropy_cells import _upsample_cross_entropy_cells_kernel
from fcnkern.backends.triton._upsample_cross_entropy_finish import (
    _upsample_cross_entropy_finish_kernel,
    _upsample_cross_entropy_total_kernel,
)
from fcnkern.ops._checks import dense_format

_BLOCK = 1024
_TILE = 1024


def _registers(pixels: Pixels) -> int | None:
    """Most registers of a thread on the current device: what the sums of 64 pixels and their surroundings take there.

    They bound the number of warps on a multiprocessor. None where the compiler has no such limit.
    """
    if INTERPRETED:
        return None
    target = triton.runtime.driver.active.get_current_target()
    if target.backend != "cuda":
        return None
    if pixels.call.reduction == "none" and pixels.call.need_grad:
        return 255
    if pixels.pixel_weight is not None:
        return 224
    if target.arch >= 100:
        return 200
    return 168 if pixels.class_weight is None else 184


def _resident_warps(pixels: Pixels) -> int:
    """Programs of one warp that run at once; few in the interpreter, so that work is split there too."""
    device = pixels.target.device
    if device.type == "cpu":
        return 4
    registers = _registers(pixels)
    per_unit = 8 if registers is None else 65536 // (32 * registers)
    return multiprocessors(device) * per_unit


def _options(pixels: Pixels) -> dict[str, int]:
    registers = _registers(pixels)
    return {"num_warps": 1} | ({} if registers is None else {"maxnreg": registers})


def _extent(tensor: Tensor) -> int:
    """Largest offset of an element, plus 1."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def run_cells(scores: Tensor, pixels: Pixels) -> tuple[Tensor, Tensor | None, Tensor]:
    """(loss or map of losses, gradient, counts) for scores that a `Resample` upsamples.

    Scratch, beside the results: for the labels' sums and for the seams each about the gradient's size divided by the
    rows of cells in a band, and 2 C numbers per strip and row of cells for the rims.
    """
    call, target, device = pixels.call, pixels.target, scores.device
    n, classes, h, w = scores.shape
    grid = LossGrid.of(scores, pixels, _resident_warps(pixels))
    programs = grid.strips * grid.bands
    flag = label_flag("target", target, classes, call.ignore_index)
    partials = torch.empty(3, programs, dtype=torch.float32, device=device)
    words = programs * (classes + 2) * grid.lanes
    if pixels.pixel_weight is None:
        counts = torch.zeros(words, dtype=torch.int32, device=device)
    else:
        counts = torch.zeros(4 * words, dtype=torch.float32, device=device)
    losses = None
    if call.reduction == "none":
        losses = torch.zeros(target.shape, dtype=torch.float32, device=device)
    grad, seam, rim = None, partials, partials
    if call.need_grad:
        grad = torch.empty_like(scores, dtype=torch.float32, memory_format=dense_format(scores))
        seam = torch.empty(programs * classes * grid.lanes, dtype=torch.float32, device=device)
        rim = torch.empty(grid.strips * grid.rows * 2 * classes, dtype=torch.float32, device=device)
    strides = (0, 0, 0, 0) if grad is None else grad.stride()
    wide = max(_extent(scores), scores.numel()) >= 2**31
    step = grid.y.step * grid.x.step
    coarse = pixels.sampling > 0 and call.cell >= max(grid.y.slots, grid.x.slots)
    _upsample_cross_entropy_cells_kernel[grid.strips, grid.bands](
        scores, target, counts, *pixels.weights(), *pixels.selection(),
        given(losses, partials), given(grad, partials), seam, rim, partials, flag,
        grid.y.first, grid.y.counts, grid.y.start, grid.x.first, grid.x.counts, grid.x.start,
        classes, h, w, *target.shape[1:], n * grid.columns, grid.columns, grid.x_begin, grid.y.begin, grid.rows,
        grid.band,
        *scores.stride(), *target.stride(), *strides,
        grid.y.step, grid.x.step, grid.steepest, call.ignore_index, call.cell, call.label_smoothing,
        LANES=grid.lanes, ROWS=grid.y.slots, COLUMNS=grid.x.slots, ROW_PARTS=grid.y.parts, PARTS=grid.x.parts,
        DOUBLINGS=2 if step < 1 / 30 else 3 if step < 1 / 15 else 0,
        ZERO=call.resample.kind == "deconv", GRAD=call.need_grad,
        COARSE=coarse, OFFSET=tl.int64 if wide else tl.int32, **pixels.modes(), **_options(pixels),
    )  # fmt: skip
    loss, scale, stats = total(partials, pixels.divisor)
    if grad is not None:
        _finish(grad, seam, rim, scale, grid)
    return loss if losses is None else losses, grad, stats


def total(partials: Tensor, divisor: float) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, scale of the reduction, counts) from the programs' partial sums."""
    loss, scale = (torch.empty((), dtype=torch.float32, device=partials.device) for _ in range(2))
    stats = torch.empty(2, dtype=torch.int64, device=partials.device)
    _upsample_cross_entropy_total_kernel[1,](
        partials, loss, scale, stats, partials.numel() // 3, divisor, BLOCK=_BLOCK
    )
    return loss, scale, stats


def _finish(grad: Tensor, seam: Tensor, rim: Tensor, scale: Tensor, grid: LossGrid) -> None:
    """Completes the gradient in place."""
    n, classes, h, w = grad.shape
    channels_last = not grad.is_contiguous()
    planes, outer, inner = (n * h, w, classes) if channels_last else (n * classes, h, w)
    tile_inner = min(triton.next_power_of_2(inner), 256)
    tile_outer = min(triton.next_power_of_2(outer), _TILE // tile_inner)
    launch = (planes, triton.cdiv(outer, tile_outer), triton.cdiv(inner, tile_inner))
    _upsample_cross_entropy_finish_kernel[launch](
        grad, seam, rim, scale, classes, h, w, *grad.stride(),
        grid.columns, grid.x_begin, grid.x.end, grid.y.begin, grid.y.end, grid.band, grid.strips,
        LANES=grid.lanes, PARTS=grid.x.parts, ROW_PARTS=grid.y.parts, CHANNELS_LAST=channels_last,
        OUTER=tile_outer, INNER=tile_inner,
    )  # fmt: skip
