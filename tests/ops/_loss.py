"""A problem for the loss, and the check against plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern import Resample
from tests.ops._truth import assert_as_exact_as_torch, upsampled
from tests.placement import upsample_cross_entropy

DECONV = Resample.deconv(4, 5)
SMALL = ((3, 4), (7, 10))
"""Sizes of scores and of labels in tests whose subject is not the geometry: few operations for an interpreter."""


def problem(
    size_in: tuple[int, int], size_out: tuple[int, int], classes: int = 5, images: int = 2
) -> tuple[Tensor, Tensor]:
    """fp64 scores, and int64 labels of which some are 255."""
    scores = torch.randn(images, classes, *size_in, dtype=torch.float64) * 3
    target = torch.randint(0, classes, (images, *size_out))
    target[torch.rand(target.shape) < 0.1] = 255
    return scores, target


def plain(
    scores: Tensor,
    target: Tensor,
    resample: Resample,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    reduction: str = "valid",
) -> Tensor:
    """The same loss by upsampling and F.cross_entropy."""
    logits = upsampled(scores, resample, target.shape[1:], weight)
    loss = F.cross_entropy(
        logits,
        target.long(),
        None if class_weight is None else class_weight.to(scores.dtype),
        ignore_index=ignore_index,
        reduction={"valid": "mean", "batch": "sum"}.get(reduction, reduction),
        label_smoothing=label_smoothing,
    )
    return loss / scores.shape[0] if reduction == "batch" else loss


def with_gradient(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Loss and gradients; a map of losses is weighted first so that its gradient varies."""
    weighted = (
        loss if loss.dim() == 0 else loss * torch.linspace(-1, 2, loss.numel()).view(loss.shape).to(loss)
    )
    return [loss.detach(), *torch.autograd.grad(weighted.sum() * 1.5, inputs)]


def check(
    backend: str,
    scores64: Tensor,
    target: Tensor,
    resample: Resample,
    dtype: torch.dtype = torch.float32,
    weight64: Tensor | None = None,
    **options: Any,
) -> None:
    """Loss and gradients against the truth by the rule of _truth."""
    inputs = [tensor.to(dtype) for tensor in (scores64, weight64) if tensor is not None]

    def run(function: Any, kind: torch.dtype, **more: Any) -> list[Tensor]:
        leaves = [tensor.to(kind).requires_grad_() for tensor in inputs]
        learned = leaves[1] if len(leaves) > 1 else None
        return with_gradient(function(leaves[0], target, resample, weight=learned, **options, **more), leaves)

    ours = run(upsample_cross_entropy, dtype, backend=backend)
    for index, (value, name) in enumerate(zip(ours, ("loss", "gradient", "weight gradient"), strict=False)):
        assert_as_exact_as_torch(value, lambda kind, index=index: run(plain, kind)[index], dtype, name)
