"""Launches the fused loss over pixels: scores at full size, given so or upsampled by a learned weight in bands."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._arguments import tensor_view
from fcnkern.backends._bands import LearnedUpsampling
from fcnkern.backends._loss_call import Pixels
from fcnkern.backends.cuda import upsample_add
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.backends.cuda._loss_cells import Arguments, total
from fcnkern.backends.cuda._structs import filled
from fcnkern.backends.cuda.upsample_argmax import upsample_argmax
from fcnkern.ops._checks import dense_format

Result = tuple[Tensor, Tensor | None, Tensor | None, Tensor]
BLOCK = 128


def run_full(scores: Tensor, pixels: Pixels) -> Result:
    """(loss or map of losses, gradient, None, counts) for scores at full size."""
    losses = _map(pixels)
    grad = None
    if pixels.call.need_grad:
        grad = torch.empty_like(scores, dtype=torch.float32, memory_format=dense_format(scores))
    partials = _launch(scores, pixels, (0, 0), losses, grad)
    loss, scale, stats = total(partials, pixels.divisor)
    return loss if losses is None else losses, None if grad is None else grad.mul_(scale), None, stats


def run_learned(scores: Tensor, weight: Tensor, pixels: Pixels) -> Result:
    """The same, and the gradient for the weight, for scores that a learned weight upsamples."""
    call, target = pixels.call, pixels.target
    size = (target.shape[1], target.shape[2])
    learned = LearnedUpsampling(upsample_add, scores, weight, call.resample, size)
    parts = []
    losses = _map(pixels)
    grad = grad_weight = None
    if call.need_grad:
        grad = torch.zeros_like(scores, dtype=torch.float32, memory_format=dense_format(scores))
        grad_weight = torch.zeros_like(learned.weight, memory_format=torch.contiguous_format)
    for band in learned.bands():
        band_grad = torch.empty_like(band.scores) if call.need_grad else None
        parts.append(_launch(band.scores, pixels, (band.image, band.first_row), losses, band_grad))
        if band_grad is not None and grad is not None and grad_weight is not None:
            learned.backward(band, band_grad, grad, grad_weight)
    loss, scale, stats = total(torch.cat(parts, 1), pixels.divisor)
    if grad is not None and grad_weight is not None:
        grad.mul_(scale)
        grad_weight.mul_(scale)
    return loss if losses is None else losses, grad, grad_weight, stats


def _map(pixels: Pixels) -> Tensor | None:
    if pixels.call.reduction != "none":
        return None
    return torch.empty(pixels.target.shape, device=pixels.target.device)


def _launch(
    scores: Tensor, pixels: Pixels, place: tuple[int, int], losses: Tensor | None, grad: Tensor | None
) -> Tensor:
    """One run over full-size scores that start at ``place`` (image, row) of the target; 3 × blocks partial sums."""
    n, classes, rows, width = scores.shape
    arguments = Arguments(pixels, classes)
    partials = torch.empty(3, -(-rows * width // BLOCK) * n, device=scores.device)
    parameters = filled(
        "LossFull",
        pixels=arguments.struct,
        scores=tensor_view(scores),
        images=n,
        rows=rows,
        first_image=place[0],
        first_row=place[1],
        losses=losses,
        grad=grad,
        grad_stride=(0, 0, 0, 0) if grad is None else grad.stride(),
        partials=partials,
    )
    kernels.upsample_cross_entropy_full(parameters, stream_of(scores))
    return partials


def count_correct(scores: Tensor, weight: Tensor | None, pixels: Pixels) -> Tensor:
    """How many of the pixels that count are predicted right, int64; holds one label map meanwhile."""
    target = pixels.target
    n, height, width = target.shape
    classes = scores.shape[1] if weight is None else max(scores.shape[1], weight.shape[1])
    predicted, _ = upsample_argmax(scores, weight, pixels.call.resample, (height, width), torch.int32, False)
    partials = torch.empty(-(-height * width // BLOCK) * n, dtype=torch.int32, device=target.device)
    arguments = Arguments(pixels, classes)
    kernels.upsample_cross_entropy_correct(
        arguments.struct, predicted.data_ptr(), n, partials.data_ptr(), stream_of(target)
    )
    return partials.sum()
