"""Launches the fused loss over pixels: scores at full size, given so or upsampled by a learned weight in bands."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from fcnkern.backends._labels import label_flag
from fcnkern.backends._limits import narrowest_label
from fcnkern.backends._loss_call import Pixels, given
from fcnkern.backends._loss_full import FullSizeLoss
from fcnkern.backends.triton import upsample_add
from fcnkern.backends.triton._loss_cells import total
from fcnkern.backends.triton._upsample_cross_entropy_pixels import (
    _count_correct_kernel,
    _sum_weights_kernel,
    _upsample_cross_entropy_pixels_kernel,
)
from fcnkern.backends.triton.upsample_argmax import upsample_argmax
from fcnkern.ops.upsample_add import outputs_of

_BLOCK = 128


def _launch(
    scores: Tensor,
    pixels: Pixels,
    place: tuple[int, int],
    losses: Tensor | None,
    grad: Tensor | None,
    divisor: float | Tensor,
) -> Tensor:
    """One run over full-size scores that start at ``place`` (image, row) of the target; 3 × programs partial sums."""
    target, call = pixels.target, pixels.call
    n, classes, rows, width = scores.shape
    grid = (triton.cdiv(rows * width, _BLOCK) * n,)
    partials = torch.empty(3, *grid, dtype=torch.float32, device=scores.device)
    flag = label_flag("target", target, classes, call.ignore_index)
    weight, number = (divisor, 1.0) if isinstance(divisor, Tensor) else (partials, divisor)
    _upsample_cross_entropy_pixels_kernel[grid](
        scores, target, *pixels.weights(), *pixels.selection(),
        given(losses, partials), given(grad, partials), partials, weight, flag,
        classes, *target.shape[1:], *place, rows,
        *scores.stride(), *target.stride(), *((0, 0, 0, 0) if grad is None else grad.stride()),
        call.ignore_index, call.cell, call.label_smoothing, number,
        BLOCK=_BLOCK, GRAD=grad is not None, KNOWN=weight is partials, **pixels.modes(),
    )  # fmt: skip
    return partials


def _weigh(pixels: Pixels, classes: int) -> Tensor:
    """The sum of the weights of the pixels that count."""
    target, call = pixels.target, pixels.call
    n, height, width = target.shape
    grid = (triton.cdiv(height * width, _BLOCK) * n,)
    partials = torch.empty(grid, dtype=torch.float32, device=target.device)
    _sum_weights_kernel[grid](
        target, *pixels.weights(), *pixels.selection(), partials, classes, height, width, *target.stride(),
        call.ignore_index, call.cell, BLOCK=_BLOCK, WEIGHTED=pixels.class_weight is not None,
        PIXEL_WEIGHT=pixels.pixel_weight is not None, SAMPLING=pixels.sampling, HARD=pixels.cuts is not None,
    )  # fmt: skip
    return partials.sum()


FULL_SIZE = FullSizeLoss(_launch, _weigh, total, upsample_add)


def count_correct(scores: Tensor, weight: Tensor | None, pixels: Pixels) -> Tensor:
    """How many of the pixels that count are predicted right, int64; holds one label map meanwhile."""
    target, call = pixels.target, pixels.call
    n, height, width = target.shape
    classes = outputs_of(scores, weight)
    kind = narrowest_label(classes)
    predicted, _ = upsample_argmax(scores, weight, call.resample, (height, width), kind, False)
    grid = (triton.cdiv(height * width, _BLOCK) * n,)
    partials = torch.empty(grid, dtype=torch.int32, device=target.device)
    _count_correct_kernel[grid](
        predicted, target, *pixels.selection(), partials, classes, height, width, *target.stride(),
        call.ignore_index, call.cell, BLOCK=_BLOCK, SAMPLING=pixels.sampling, HARD=pixels.cuts is not None,
    )  # fmt: skip
    return partials.sum()
