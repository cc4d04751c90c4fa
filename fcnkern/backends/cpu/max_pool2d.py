"""`max_pool2d` with the C++ kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fcnkern.backends._arguments import FLOAT_TYPES
from fcnkern.backends._pooling import backward_tensors, forward_tensors, is_channels_last
from fcnkern.backends.cpu._extension import kernels
from fcnkern.backends.cpu._memory import in_huge_pages
from fcnkern.ops._window import Window
from fcnkern.resample import Pair


def max_pool2d_fwd(x: Tensor, window: Window, relu: bool, need_winners: bool) -> tuple[Tensor, Tensor | None]:
    """(output, winners or None), both in the layout of ``x``, which is read once."""
    x, out, winners = forward_tensors(x, window, need_winners)
    _run(kernels.max_pool2d_forward, x, in_huge_pages(out), winners, window, relu)
    return out, winners


def max_pool2d_bwd(grad: Tensor, winners: Tensor, window: Window, size: Pair) -> Tensor:
    """The gradient of each output, added to that of its winner; in the layout of ``winners``."""
    grad, winners, grad_x = backward_tensors(grad, winners, size)
    _run(kernels.max_pool2d_backward, in_huge_pages(grad_x), grad, winners, window, False)
    return grad_x


def _run(
    kernel: Callable[..., None], x: Tensor, y: Tensor, winners: Tensor | None, window: Window, relu: bool
) -> None:
    kernel(
        tuple(x.shape),
        tuple(y.shape[2:]),
        (*window.kernel_size, *window.stride, *window.padding),
        FLOAT_TYPES[x.dtype],
        is_channels_last(x, y),
        relu,
        x.data_ptr(),
        y.data_ptr(),
        0 if winners is None else winners.data_ptr(),
        torch.get_num_threads(),
    )
