"""`upsample_cross_entropy` with the Triton kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fcnkern.backends.triton._labels import raise_reported
from fcnkern.backends.triton._launch import on_device
from fcnkern.backends.triton._loss_call import Pixels
from fcnkern.backends.triton._loss_cells import run_cells
from fcnkern.backends.triton._loss_pixelwise import Result, count_correct, run_learned, run_pixels
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
    pixels = Pixels(
        _comparable(target, call.ignore_index),
        None if class_weight is None else class_weight.float().contiguous(),
        seed,
        None if pixel_weight is None else pixel_weight.float().contiguous(),
        call,
        () if seed is None else call.keep,
    )
    with on_device(scores):
        if call.hard is not None:
            pixels = _with_hard_pixels(scores, weight, pixels, *call.hard)
        loss, grad, grad_weight, stats = _run(scores, weight, pixels)
        if call.need_stats:
            stats[1] = count_correct(scores, weight, pixels)
    if scores.device.type == "cpu":
        raise_reported(scores.device)
    return loss, grad, grad_weight, stats


def _run(scores: Tensor, weight: Tensor | None, pixels: Pixels) -> Result:
    if weight is not None:
        return run_learned(scores, weight, pixels)
    if pixels.call.resample.kind == "identity":
        return run_pixels(scores, pixels)
    loss, grad, stats = run_cells(scores, pixels)
    return loss, grad, None, stats


def _comparable(target: Tensor, ignore_index: int) -> Tensor:
    """Labels of a type that holds ``ignore_index``, which kernels put in place of labels outside."""
    limits = torch.iinfo(target.dtype)
    return target if limits.min <= ignore_index <= limits.max else target.to(torch.int64)


def _with_hard_pixels(
    scores: Tensor, weight: Tensor | None, pixels: Pixels, threshold: float, min_kept: int
) -> Pixels:
    call = pixels.call._replace(reduction="none", label_smoothing=0.0, need_grad=False, need_stats=False)
    losses, _, _, stats = _run(scores, weight, Pixels(pixels.target, None, None, None, call, ()))
    above = torch.full((), -math.log(threshold) if threshold > 0 else math.inf, device=losses.device)
    least = torch.full_like(above, math.inf)
    most = min(min_kept, losses.numel())
    if most > 0:
        largest = losses.flatten().topk(most).values
        count = stats[:1].clamp(max=most)
        least = torch.where(count > 0, largest.gather(0, (count - 1).clamp(min=0)), math.inf)[0]
    return pixels._replace(hard_losses=losses, cuts=torch.stack((above, least)))
