"""Launches the fused loss over pixels: scores at full size, given so or upsampled by a learned weight in bands."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._arguments import label_map, tensor_view
from fcnkern.backends._limits import narrowest_label
from fcnkern.backends._loss_call import Pixels
from fcnkern.backends._loss_full import FullSizeLoss
from fcnkern.backends.cuda import upsample_add
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.backends.cuda._loss_cells import Arguments, total
from fcnkern.backends.cuda._structs import filled
from fcnkern.backends.cuda.upsample_argmax import upsample_argmax
from fcnkern.ops.upsample_add import outputs_of

BLOCK = 128
MOST_BLOCKS = 8192
"""Over which the scores of all images are dealt out: some waves on any GPU, and few sums to add up."""


def _launch(
    scores: Tensor,
    pixels: Pixels,
    place: tuple[int, int],
    losses: Tensor | None,
    grad: Tensor | None,
    divisor: float | Tensor,
) -> Tensor:
    """One run over full-size scores that start at ``place`` (image, row) of the target; 3 × blocks partial sums."""
    n, classes, rows, width = scores.shape
    arguments = Arguments(pixels, classes)
    blocks = min(-(-rows * width // BLOCK), max(1, MOST_BLOCKS // n))
    partials = torch.empty(3, blocks * n, dtype=torch.float32, device=scores.device)
    weight, number = (divisor, 0.0) if isinstance(divisor, Tensor) else (None, divisor)
    parameters = filled(
        "LossFull",
        pixels=arguments.struct,
        scores=tensor_view(scores),
        images=n,
        rows=rows,
        first_image=place[0],
        first_row=place[1],
        blocks=blocks,
        divisor=number,
        weight=weight,
        losses=losses,
        grad=grad,
        grad_stride=(0, 0, 0, 0) if grad is None else grad.stride(),
        partials=partials,
    )
    kernels.upsample_cross_entropy_full(parameters, stream_of(scores))
    return partials


def _weigh(pixels: Pixels, classes: int) -> Tensor:
    """The sum of the weights of the pixels that count."""
    n, height, width = pixels.target.shape
    arguments = Arguments(pixels, classes)
    arguments.struct.report = 0  # that of the loss is enough
    partials = torch.empty(-(-height * width // BLOCK) * n, dtype=torch.float32, device=pixels.target.device)
    kernels.upsample_cross_entropy_weight(arguments.struct, n, partials.data_ptr(), stream_of(pixels.target))
    return partials.sum()


FULL_SIZE = FullSizeLoss(_launch, _weigh, total, upsample_add)


def count_correct(scores: Tensor, weight: Tensor | None, pixels: Pixels) -> Tensor:
    """How many of the pixels that count are predicted right, int64; holds one label map meanwhile."""
    target = pixels.target
    n, height, width = target.shape
    classes = outputs_of(scores, weight)
    kind = narrowest_label(classes)
    predicted, _ = upsample_argmax(scores, weight, pixels.call.resample, (height, width), kind, False)
    partials = torch.empty(-(-height * width // BLOCK) * n, dtype=torch.int32, device=target.device)
    arguments = Arguments(pixels, classes)
    kernels.upsample_cross_entropy_correct(
        arguments.struct, label_map(predicted), n, partials.data_ptr(), stream_of(target)
    )
    return partials.sum()
