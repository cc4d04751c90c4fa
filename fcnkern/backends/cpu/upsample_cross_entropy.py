"""`upsample_cross_entropy` with the C++ kernels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.backends._arguments import label_map, upsampling
from fcnkern.backends._bands import LearnedUpsampling
from fcnkern.backends._limits import check_classes
from fcnkern.backends._loss_call import rank_losses
from fcnkern.backends.cpu import upsample_add
from fcnkern.backends.cpu._extension import kernels
from fcnkern.backends.cpu._memory import in_huge_pages
from fcnkern.backends.errors import label_error
from fcnkern.ops._checks import dense_format
from fcnkern.ops._loss_call import LossCall
from fcnkern.resample import Resample

Gradient = Tensor | None
Counts = tuple[int, int]


class _Pixels(NamedTuple):
    """All that says how much each pixel counts."""

    target: Tensor
    class_weight: list[float]
    seed: int
    pixel_weight: Tensor | None
    call: LossCall
    keep: tuple[float, ...]
    hard_losses: Tensor | None = None
    """-log p of the targets; pixels are kept where it is > cuts[0] or >= cuts[1]."""
    cuts: tuple[float, float] = (math.inf, math.inf)
    origin: tuple[int, int] = (0, 0)
    """The image and the row of the whole target at which ``target`` starts."""

    def rows(self, image: int, first: int, count: int) -> _Pixels:
        """Some rows of one image."""
        where = (slice(image, image + 1), slice(first, first + count))
        return self._replace(
            target=self.target[where],
            pixel_weight=None if self.pixel_weight is None else self.pixel_weight[where],
            hard_losses=None if self.hard_losses is None else self.hard_losses[where],
            origin=(image, first),
        )


class _Part(NamedTuple):
    """What one run of the kernel sums up."""

    loss: float
    weight: float
    valid: int
    correct: int


def upsample_cross_entropy_fwd(
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    seed: Tensor | None,
    pixel_weight: Tensor | None,
    call: LossCall,
) -> tuple[Tensor, Gradient, Gradient, Tensor | None]:
    """(loss, gradient for the scores, gradient for the weight, counts); the last three where the call needs them.

    Beside its results it holds O(C·(w + W)) numbers per thread; with a learned weight a few bands of upsampled
    scores of 4 MiB each; for hard pixels also one N×H×W map. Results have the same bits for any number of threads.

    Raises:
        ValueError: a label that is neither a class nor ``ignore_index``, or too many classes.
    """
    kind = accumulation_type(scores.dtype)
    pixels = _Pixels(
        target,
        [] if class_weight is None else class_weight.tolist(),
        0 if seed is None else int(seed) & (2**64 - 1),
        None if pixel_weight is None else pixel_weight.to(kind).contiguous(),
        call,
        () if seed is None else call.keep,
    )
    learned = None
    if weight is not None:
        size = (target.shape[1], target.shape[2])
        learned = LearnedUpsampling(upsample_add, scores, weight, call.resample, size)
    if call.hard is not None:
        pixels = _with_hard_pixels(scores, learned, pixels, call.hard)
    loss, grad, grad_weight, counts = _run(scores, pixels) if learned is None else _run_bands(learned, pixels)
    stats = torch.tensor(counts, device=scores.device) if call.need_stats else None
    return loss, grad, grad_weight, stats


def _with_hard_pixels(
    scores: Tensor, learned: LearnedUpsampling | None, pixels: _Pixels, hard: tuple[float, int]
) -> _Pixels:
    threshold, min_kept = hard
    plain = _Pixels(pixels.target, [], 0, None, pixels.call.plain_losses(), ())
    losses, _, _, counts = _run(scores, plain) if learned is None else _run_bands(learned, plain)
    rank_losses(losses)
    count = min(min_kept, counts[0])
    above, least = -math.log(threshold) if threshold > 0 else math.inf, math.inf
    if int((losses > above).sum()) < count:
        least = float(losses.flatten().kthvalue(losses.numel() - count + 1).values)
    return pixels._replace(hard_losses=losses, cuts=(above, least))


def _run(scores: Tensor, pixels: _Pixels) -> tuple[Tensor, Gradient, Gradient, Counts]:
    """Upsampling by the resampling of the call."""
    call, target = pixels.call, pixels.target
    kind = accumulation_type(scores.dtype)
    grad = None
    if call.need_grad:
        grad = in_huge_pages(torch.empty_like(scores, dtype=kind, memory_format=dense_format(scores)))
    losses = _losses(pixels, kind)
    divisor = {"valid": 0.0, "batch": float(target.shape[0])}.get(call.reduction, 1.0)
    part = _kernel(scores, call.resample, pixels, divisor, losses, grad)
    return _loss(part.loss, losses, kind), grad, None, (part.valid, part.correct)


def _run_bands(learned: LearnedUpsampling, pixels: _Pixels) -> tuple[Tensor, Gradient, Gradient, Counts]:
    """Upsampling by a learned weight."""
    call, target, kind = pixels.call, pixels.target, learned.weight.dtype
    losses = _losses(pixels, kind)
    grads = learned.zero_grads(call)
    parts = []
    for band in learned.bands():
        place = (band.image, band.first_row, band.scores.shape[2])
        band_grad = None
        if call.need_any_grad:
            band_grad = torch.empty(band.scores.shape, dtype=kind, device=target.device)
        band_losses = None if losses is None else losses[band.image, band.first_row :]
        parts.append(
            _kernel(band.scores, Resample.identity(), pixels.rows(*place), 1.0, band_losses, band_grad)
        )
        if band_grad is not None:
            learned.backward(band, band_grad, *grads)
    sums = _Part(*map(sum, zip(*parts, strict=True)))
    divisor = {"valid": sums.weight, "batch": float(target.shape[0])}.get(call.reduction, 1.0)
    scale = 1 / divisor if divisor > 0 else 0.0
    for grad in grads:
        if grad is not None:
            grad.mul_(scale)
    return _loss(sums.loss * scale, losses, kind), *grads, (sums.valid, sums.correct)


def _losses(pixels: _Pixels, kind: torch.dtype) -> Tensor | None:
    """Room for the loss of each pixel where it is asked for."""
    if pixels.call.reduction != "none":
        return None
    return in_huge_pages(torch.empty(pixels.target.shape, dtype=kind, device=pixels.target.device))


def _loss(total: float, losses: Tensor | None, kind: torch.dtype) -> Tensor:
    return torch.scalar_tensor(total, dtype=kind, device="cpu") if losses is None else losses


def _kernel(
    scores: Tensor,
    resample: Resample,
    pixels: _Pixels,
    divisor: float,
    losses: Tensor | None,
    grad: Tensor | None,
) -> _Part:
    """Sums over some pixels; fills the maps from the start of ``losses`` and ``grad``."""
    check_classes("CPU", "scores", scores.shape[1])
    height, width = pixels.target.shape[1:]
    *sums, error = kernels.upsample_cross_entropy(
        upsampling(scores, resample, (height, width)),
        label_map(pixels.target),
        pixels.call.ignore_index,
        pixels.class_weight,
        pixels.call.label_smoothing,
        pixels.keep,
        pixels.call.cell,
        pixels.seed,
        pixels.origin,
        _address(pixels.hard_losses),
        pixels.cuts,
        _address(pixels.pixel_weight),
        divisor,
        _address(losses),
        _address(grad),
        grad is not None and not grad.is_contiguous(),
        pixels.call.need_stats,
        torch.get_num_threads(),
    )
    if error is not None:
        index, value, _ = error
        image, row = pixels.origin
        place = (image + index // (height * width), row + index // width % height, index % width)
        raise label_error("target", value, place, scores.shape[1], pixels.call.ignore_index)
    return _Part(*sums)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
