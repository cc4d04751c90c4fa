"""upsample_cross_entropy in plain PyTorch, with full-resolution tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.backends.errors import label_error
from fcnkern.backends.reference._resample import upsample, upsample_backward
from fcnkern.backends.reference.philox import cell_words
from fcnkern.ops._loss_call import LossCall


class _Pixels(NamedTuple):
    """Per pixel: the class to index with (0 where ignored), whether it counts, and its factors."""

    label: Tensor
    valid: Tensor
    weight: Tensor
    """Class weight of the label, times the pixel weight; 0 where it does not count."""
    factor: Tensor
    """The pixel weight; 0 where it does not count."""


def upsample_cross_entropy_fwd(
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    seed: Tensor | None,
    pixel_weight: Tensor | None,
    call: LossCall,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """(loss, gradient for the scores, gradient for the weight, counts); gradients where the call needs them."""
    dtype = accumulation_type(scores.dtype)
    low, kernel = scores.to(dtype), None if weight is None else weight.to(dtype)
    logits = upsample(low, kernel, call.resample, (target.shape[1], target.shape[2]))
    log_p = logits.log_softmax(1)
    classes = logits.shape[1]
    ones = logits.new_ones(classes)
    weights = ones if class_weight is None else class_weight.to(dtype)
    pixels = _pixels(log_p, target, weights, seed, pixel_weight, call)
    losses = _losses(log_p, weights, pixels, call.label_smoothing)
    scale = _scale(pixels, call, target.shape[0])
    loss = losses if call.reduction == "none" else losses.sum() * scale
    right = (logits.argmax(1) == pixels.label) & pixels.valid
    stats = torch.stack((pixels.valid.sum(), right.sum() if call.need_stats else pixels.valid.sum() * 0))
    if not call.need_any_grad:
        return loss, None, None, stats
    grad = _logits_grad(log_p, weights, pixels, call.label_smoothing) * scale
    grad_scores, grad_weight = upsample_backward(grad, low, kernel, call.resample)
    return (
        loss,
        grad_scores if call.need_grad else None,
        grad_weight if call.need_weight_grad else None,
        stats,
    )


def _pixels(
    log_p: Tensor,
    target: Tensor,
    weights: Tensor,
    seed: Tensor | None,
    pixel_weight: Tensor | None,
    call: LossCall,
) -> _Pixels:
    classes = log_p.shape[1]
    wide = target.long()
    valid = wide != call.ignore_index
    wrong = valid & ((wide < 0) | (wide >= classes))
    if bool(wrong.any()):
        n, y, x = (int(i) for i in wrong.nonzero()[0])
        raise label_error("target", int(wide[n, y, x]), (n, y, x), classes, call.ignore_index)
    label = wide.masked_fill(~valid, 0)
    if seed is not None:
        limits = torch.tensor(call.keep, dtype=torch.float64, device=target.device) * 2**32
        words = cell_words(seed, (target.shape[0], target.shape[1], target.shape[2]), call.cell)
        valid = valid & (words < limits[label if len(call.keep) > 1 else torch.zeros_like(label)])
    if call.hard is not None:
        valid = valid & _hard(log_p, label, valid, *call.hard)
    factor = valid.to(log_p.dtype)
    if pixel_weight is not None:
        factor = torch.where(valid, pixel_weight.to(log_p.dtype), 0)
    return _Pixels(label, valid, weights[label] * factor, factor)


def _hard(log_p: Tensor, label: Tensor, valid: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Pixels of target probability below the threshold, or among the ``min_kept`` smallest (ties kept); NaN is 0."""
    p = log_p.gather(1, label[:, None])[:, 0].exp().nan_to_num(nan=0.0)
    hard = p < threshold
    count = min(min_kept, int(valid.sum()))
    if count > 0:
        hard = hard | (p <= p[valid].kthvalue(count).values)
    return hard


def _losses(log_p: Tensor, weights: Tensor, pixels: _Pixels, smoothing: float) -> Tensor:
    picked = log_p.gather(1, pixels.label[:, None])[:, 0]
    losses = torch.where(pixels.valid, -picked * pixels.weight * (1 - smoothing), 0)
    if smoothing > 0:
        spread = -(log_p * weights[:, None, None]).sum(1) * pixels.factor * (smoothing / log_p.shape[1])
        losses = losses + torch.where(pixels.valid, spread, 0)
    return losses


def _logits_grad(log_p: Tensor, weights: Tensor, pixels: _Pixels, smoothing: float) -> Tensor:
    classes = log_p.shape[1]
    hard = pixels.weight * (1 - smoothing)
    spread = pixels.factor * (smoothing / classes)
    grad = log_p.exp() * (hard + spread * weights.sum())[:, None]
    grad.scatter_add_(1, pixels.label[:, None], -hard[:, None])
    grad = grad - spread[:, None] * weights[:, None, None]
    return grad.masked_fill(~pixels.valid[:, None], 0)


def _scale(pixels: _Pixels, call: LossCall, images: int) -> Tensor:
    total = pixels.weight.sum()
    if call.reduction == "valid":
        return torch.where(total > 0, 1 / total, 0)
    return torch.full_like(total, 1 / images if call.reduction == "batch" else 1.0)
