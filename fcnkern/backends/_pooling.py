"""The tensors of `max_pool2d` as its kernels take them: dense, all in one layout."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.ops._checks import dense_format
from fcnkern.ops._window import Window
from fcnkern.resample import Pair


def forward_tensors(x: Tensor, window: Window, need_winners: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """``x``, room for the output and, where they are needed, for the winners; in the layout of ``x``."""
    layout = dense_format(x)
    shape = (*x.shape[:2], *window.out_size(x.shape[2], x.shape[3]))
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    winners = torch.empty_like(out, dtype=torch.uint8) if need_winners else None
    return x.contiguous(memory_format=layout), out, winners


def backward_tensors(grad: Tensor, winners: Tensor, size: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """``grad``, ``winners`` and room for the gradient of the input, of ``size``; in the layout of ``winners``."""
    layout = dense_format(winners)
    grad_x = torch.empty((*grad.shape[:2], *size), dtype=grad.dtype, device=grad.device, memory_format=layout)
    return grad.contiguous(memory_format=layout), winners.contiguous(memory_format=layout), grad_x


def is_channels_last(x: Tensor, y: Tensor) -> bool:
    """Whether a pixel's numbers lie side by side in an input and its output; a map of 1x1 alone would not tell."""
    return not (x.is_contiguous() and y.is_contiguous())
