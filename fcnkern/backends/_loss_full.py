"""The fused loss over full-size scores, given so or upsampled by a learned weight in bands, on any GPU backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.backends._bands import Deconvolution, LearnedUpsampling
from fcnkern.backends._loss_call import Pixels
from fcnkern.ops._checks import dense_format

Result = tuple[Tensor, Tensor | None, Tensor | None, Tensor]
"""Loss or map of losses, gradient for the scores, gradient for the weight, counts."""


class FullSizeLoss(NamedTuple):
    """A backend's kernels.

    ``launch(scores, pixels, place, losses, grad, divisor)`` runs over full-size scores that start at ``place``
    (image, row) of the target, divides the gradient by a number or by a sum of weights on the device, and gives
    partial sums; ``weigh(pixels, classes)`` gives that sum; ``total(partials, divisor)`` gives the loss, the scale of
    its reduction and the counts; ``deconvolution`` is the backend's module `upsample_add`.
    """

    launch: Callable[[Tensor, Pixels, tuple[int, int], Tensor | None, Tensor | None, float | Tensor], Tensor]
    weigh: Callable[[Pixels, int], Tensor]
    total: Callable[[Tensor, float], tuple[Tensor, Tensor, Tensor]]
    deconvolution: Deconvolution

    def run(self, scores: Tensor, pixels: Pixels) -> Result:
        """The loss of scores at full size.

        The labels alone give a sum of weights that divides the gradient: reading them first spares reading and
        writing the gradient again.
        """
        losses = _map(pixels)
        grad = None
        divisor: float | Tensor = 1.0
        if pixels.call.need_grad:
            divisor = pixels.divisor or self.weigh(pixels, scores.shape[1])
            grad = torch.empty_like(scores, dtype=torch.float32, memory_format=dense_format(scores))
        partials = self.launch(scores, pixels, (0, 0), losses, grad, divisor)
        loss, _, stats = self.total(partials, pixels.divisor)
        return loss if losses is None else losses, grad, None, stats

    def run_learned(self, scores: Tensor, weight: Tensor, pixels: Pixels) -> Result:
        """The loss of scores that a learned weight upsamples."""
        call, target = pixels.call, pixels.target
        size = (target.shape[1], target.shape[2])
        learned = LearnedUpsampling(self.deconvolution, scores, weight, call.resample, size)
        parts = []
        losses = _map(pixels)
        grads = learned.zero_grads(call)
        for band in learned.bands():
            band_grad = torch.empty_like(band.scores) if call.need_any_grad else None
            place = (band.image, band.first_row)
            parts.append(self.launch(band.scores, pixels, place, losses, band_grad, 1.0))
            if band_grad is not None:
                learned.backward(band, band_grad, *grads)
        loss, scale, stats = self.total(torch.cat(parts, 1), pixels.divisor)
        for grad in grads:
            if grad is not None:
                grad.mul_(scale)
        return loss if losses is None else losses, *grads, stats


def _map(pixels: Pixels) -> Tensor | None:
    if pixels.call.reduction != "none":
        return None
    return torch.empty(pixels.target.shape, dtype=torch.float32, device=pixels.target.device)
