"""`max_pool2d` with the CUDA C++ kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fcnkern.backends._arguments import FLOAT_TYPES
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.ops._checks import dense_format
from fcnkern.ops._window import Window
from fcnkern.resample import Pair


def max_pool2d_fwd(x: Tensor, window: Window, relu: bool, need_winners: bool) -> tuple[Tensor, Tensor | None]:
    """(output, winners or None), both in the layout of ``x``."""
    layout = dense_format(x)
    x = x.contiguous(memory_format=layout)
    shape = (*x.shape[:2], *window.out_size(x.shape[2], x.shape[3]))
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    winners = torch.empty_like(out, dtype=torch.uint8) if need_winners else None
    _launch(kernels.max_pool2d_fwd, x, out, winners, window, relu)
    return out, winners


def max_pool2d_bwd(grad: Tensor, winners: Tensor, window: Window, size: Pair) -> Tensor:
    """The gradient of each output, added to that of its winner; in the layout of ``winners``."""
    layout = dense_format(winners)
    grad, winners = (each.contiguous(memory_format=layout) for each in (grad, winners))
    grad_x = torch.empty((*grad.shape[:2], *size), dtype=grad.dtype, device=grad.device, memory_format=layout)
    _launch(kernels.max_pool2d_bwd, grad_x, grad, winners, window, False)
    return grad_x


def _launch(
    kernel: Callable[..., None], x: Tensor, y: Tensor, winners: Tensor | None, window: Window, relu: bool
) -> None:
    n, channels = x.shape[:2]
    planes, depth = (n * channels, 1) if x.is_contiguous() and y.is_contiguous() else (n, channels)
    kernel(
        (planes, depth, *x.shape[2:], *y.shape[2:]),
        (*window.kernel_size, *window.stride, *window.padding),
        FLOAT_TYPES[x.dtype],
        relu,
        x.data_ptr(),
        y.data_ptr(),
        0 if winners is None else winners.data_ptr(),
        stream_of(x),
    )
