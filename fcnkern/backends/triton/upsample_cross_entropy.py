"""`upsample_cross_entropy` with the Triton kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._labels import raise_reported
from fcnkern.backends._loss_call import Pixels
from fcnkern.backends._loss_full import Result
from fcnkern.backends.triton._launch import on_device
from fcnkern.backends.triton._loss_cells import run_cells
from fcnkern.backends.triton._loss_pixelwise import FULL_SIZE, count_correct
from fcnkern.ops._loss_call import LossCall


def upsample_cross_entropy_fwd(
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    seed: Tensor | None,
    pixel_weight: Tensor | None,
    call: LossCall,
) -> Result:
    """(loss, gradient for the scores, gradient for the weight, counts); gradients where the call needs them.

    Raises:
        ValueError: a label that is neither a class nor ``ignore_index``: of this call in the interpreter, of an
            earlier one on a GPU, whose loss is NaN.
    """
    pixels = Pixels.of(_comparable(target, call.ignore_index), class_weight, seed, pixel_weight, call)
    with on_device(scores):
        if call.hard is not None:
            pixels = pixels.only_hard(_run(scores, weight, pixels.for_mining()))
        loss, grad, grad_weight, stats = _run(scores, weight, pixels)
        if call.need_stats:
            stats[1] = count_correct(scores, weight, pixels)
    if scores.device.type == "cpu":
        raise_reported(scores.device)
    return loss, grad, grad_weight, stats


def _comparable(target: Tensor, ignore_index: int) -> Tensor:
    """The labels in a type that holds ``ignore_index``, which kernels put in place of labels outside."""
    limits = torch.iinfo(target.dtype)
    return target if limits.min <= ignore_index <= limits.max else target.to(torch.int64)


def _run(scores: Tensor, weight: Tensor | None, pixels: Pixels) -> Result:
    if weight is not None:
        return FULL_SIZE.run_learned(scores, weight, pixels)
    if pixels.call.resample.kind == "identity":
        return FULL_SIZE.run(scores, pixels)
    loss, grad, stats = run_cells(scores, pixels)
    return loss, grad, None, stats
