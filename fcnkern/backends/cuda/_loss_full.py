"""Launches the fused loss over pixels: scores at full size, given so or upsampled by a learned weight in bands."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._arguments import tensor_view
from fcnkern.backends._loss_call import Pixels
from fcnkern.backends._loss_full import FullSizeLoss
from fcnkern.backends.cuda import upsample_add
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.backends.cuda._loss_cells import Arguments, total
from fcnkern.backends.cuda._structs import filled
from fcnkern.backends.cuda.upsample_argmax import upsample_argmax
from fcnkern.ops.upsample_add import outputs_of

BLOCK = 128


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


FULL_SIZE = FullSizeLoss(_launch, total, upsample_add)


def count_correct(scores: Tensor, weight: Tensor | None, pixels: Pixels) -> Tensor:
    """How many of the pixels that count are predicted right, int64; holds one label map meanwhile."""
    target = pixels.target
    n, height, width = target.shape
    classes = outputs_of(scores, weight)
    predicted, _ = upsample_argmax(scores, weight, pixels.call.resample, (height, width), torch.int32, False)
    partials = torch.empty(-(-height * width // BLOCK) * n, dtype=torch.int32, device=target.device)
    arguments = Arguments(pixels, classes)
    kernels.upsample_cross_entropy_correct(
        arguments.struct, predicted.data_ptr(), n, partials.data_ptr(), stream_of(target)
    )
    return partials.sum()
