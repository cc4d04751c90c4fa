"""`max_pool2d` with the Triton kernels."""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from fcnkern.backends._pooling import backward_tensors, forward_tensors, is_channels_last
from fcnkern.backends.triton._launch import INTERPRETED, index_type, on_device
from fcnkern.backends.triton._max_pool2d_kernels import _max_pool2d_bwd_kernel, _max_pool2d_fwd_kernel
from fcnkern.ops._window import Window
from fcnkern.resample import Pair

_WINDOWS = 1 << 12 if INTERPRETED else 512
"""Outputs of a program."""
_ELEMENTS = 1 << 12 if INTERPRETED else 1024
"""Elements of the gradient of a program."""
_WIDEST = 128
"""Most of them that lie on one line."""
_MARGIN = 4
"""Indices may run beyond a map, where nothing is read: by a window's padding, or a program's last lanes."""


def max_pool2d_fwd(x: Tensor, window: Window, relu: bool, need_winners: bool) -> tuple[Tensor, Tensor | None]:
    """(output, winners or None), both in the layout of ``x``."""
    x, out, winners = forward_tensors(x, window, need_winners)
    depth = _depth(x, out)
    length = out.shape[3] * depth
    lines, columns = out.numel() // length, _columns(length, _WINDOWS)
    with on_device(x):
        _max_pool2d_fwd_kernel[_grid(lines, length, columns, _WINDOWS)](
            x, out, out if winners is None else winners, lines, *x.shape[2:], *out.shape[2:], depth,
            *_constants(window), relu, need_winners, index_type(_MARGIN * x.numel()), _WINDOWS, columns, num_warps=4,
        )  # fmt: skip
    return out, winners


def max_pool2d_bwd(grad: Tensor, winners: Tensor, window: Window, size: Pair) -> Tensor:
    """The gradient of each output, added to that of its winner; in the layout of ``winners``."""
    grad, winners, grad_x = backward_tensors(grad, winners, size)
    (stride_y, stride_x), (pad_y, pad_x) = window.stride, window.padding
    cells_y, cells_x = triton.cdiv(size[0] + pad_y, stride_y), triton.cdiv(size[1] + pad_x, stride_x)
    depth = _depth(grad_x, grad)
    lines, length = grad.shape[0] * grad.shape[1] // depth * cells_y, cells_x * depth
    places = triton.next_power_of_2(stride_y * stride_x)
    block = max(1, _ELEMENTS // places)
    columns = _columns(length, block)
    with on_device(grad):
        _max_pool2d_bwd_kernel[_grid(lines, length, columns, block)](
            grad, winners, grad_x, lines, *size, *grad.shape[2:], depth,
            *_constants(window), index_type(_MARGIN * grad_x.numel()), block, columns, places, num_warps=4,
        )  # fmt: skip
    return grad_x


def _columns(length: int, block: int) -> int:
    """Neighbouring numbers of a line that a program takes."""
    return min(block, _WIDEST, triton.next_power_of_2(length))


def _grid(lines: int, length: int, columns: int, block: int) -> tuple[int, int]:
    return triton.cdiv(lines, block // columns), triton.cdiv(length, columns)


def _depth(x: Tensor, y: Tensor) -> int:
    """Numbers side by side in a pixel."""
    return x.shape[1] if is_channels_last(x, y) else 1


def _constants(window: Window) -> tuple[Any, ...]:
    return (*window.kernel_size, *window.stride, *window.padding)
