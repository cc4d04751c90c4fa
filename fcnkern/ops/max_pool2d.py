"""max_pool2d: max pooling, with the ReLU before it, that keeps one byte per output for its gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern.backends.select import implementation
from fcnkern.ops import _checks as checks
from fcnkern.ops._library import Compute, Operator
from fcnkern.ops._window import WINDOW_SCHEMA, Window
from fcnkern.resample import Pair


def max_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    *,
    relu: bool = False,
    backend: str | None = None,
) -> Tensor:
    """``F.max_pool2d(x, ...)``, or with ``relu`` ``F.max_pool2d(F.relu(x), ...)`` without the map in between.

    For the gradient it keeps which element of each window was the largest, one byte per output, where PyTorch keeps
    the input and indices of eight bytes. Ties go to the first element; NaN counts as the largest. In a program that
    `torch.compile` or `torch.export` makes it is PyTorch's own, which compilers know, unless a backend is forced.

    Args:
        x: N×C×H×W, fp32, fp64, bf16 or fp16, any strides.
        kernel_size: (rows, columns) of the windows, at most 255 elements.
        stride: from window to window; None: kernel_size.
        padding: by which the first window begins before the map, at most half of kernel_size.
        ceil_mode: whether the output's size is rounded up, as in Caffe.
        relu: whether negative elements count as 0.
        backend: name that forces a backend.

    Returns:
        N×C×h×w, of x's type; differentiable any number of times.

    Raises:
        TypeError, ValueError: an argument has another type, rank or size than stated above, or no window fits.
    """
    checks.check_images("x", x, 4, checks.FLOATS)
    window = Window.of(kernel_size, stride, padding, ceil_mode)
    size = window.out_size(x.shape[2], x.shape[3])
    if min(size) < 1:
        raise ValueError(f"kernel_size {window.kernel_size} does not fit into x, got {checks.shape_text(x)}")
    if torch.compiler.is_compiling() and backend is None:
        return F.max_pool2d(x.relu() if relu else x, *window[:3], ceil_mode=ceil_mode)
    need_winners = x.requires_grad and torch.is_grad_enabled()
    fitted = window.fitted(x.shape[2], x.shape[3])
    pooled: Tensor = _OP(x, fitted, relu, need_winners, backend)[0]
    return pooled


def _compute(
    x: Tensor, window: Window, relu: bool, need_winners: bool, backend: str | None
) -> tuple[Tensor, Tensor]:
    run = implementation("max_pool2d", x, backend)
    out, winners = run.max_pool2d_fwd(x, window, relu, need_winners)
    out = checks.densely(out, x)
    return out, x.new_empty(0, dtype=torch.uint8) if winners is None else checks.densely(winners, x)


def _fake(
    x: Tensor, window: Window, relu: bool, need_winners: bool, backend: str | None
) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:2], *window.out_size(x.shape[2], x.shape[3]))
    layout = checks.dense_format(x)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    winners = torch.empty_like(out, dtype=torch.uint8) if need_winners else x.new_empty(0, dtype=torch.uint8)
    return out, winners


def _compute_backward(
    grad: Tensor, winners: Tensor, window: Window, size: Pair, backend: str | None
) -> Tensor:
    run = implementation("max_pool2d", grad, backend)
    return checks.densely(run.max_pool2d_bwd(grad, winners, window, size), winners)


def _fake_backward(grad: Tensor, winners: Tensor, window: Window, size: Pair, backend: str | None) -> Tensor:
    layout = checks.dense_format(winners)
    return torch.empty((*grad.shape[:2], *size), dtype=grad.dtype, device=grad.device, memory_format=layout)


class _MaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Compute, *args: Any) -> tuple[Tensor, Tensor]:
        x, ctx.window, relu, _, ctx.backend = args
        # Under vmap the caller saw no need of winners.
        out, winners = run(x, ctx.window, relu, True, ctx.backend)
        ctx.size = (x.shape[2], x.shape[3])
        ctx.save_for_backward(winners)
        ctx.mark_non_differentiable(winners)
        ctx.set_materialize_grads(False)
        return out, winners

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        given = (
            None if grad is None else _BACKWARD(grad, *ctx.saved_tensors, ctx.window, ctx.size, ctx.backend)
        )
        return None, given, None, None, None, None


class _MaxPool2dBackward(torch.autograd.Function):
    """Linear in the gradient: its own gradient gathers where it scatters."""

    @staticmethod
    def forward(ctx: Any, run: Compute, *args: Any) -> Tensor:
        _, winners, ctx.window, *_ = args
        ctx.save_for_backward(winners)
        out: Tensor = run(*args)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (winners,) = ctx.saved_tensors
        places, winning = ctx.window.places(winners, slope.shape[3])
        found = slope.flatten(2).gather(2, places.flatten(2)).view(places.shape)
        return None, torch.where(winning, found, 0), None, None, None, None


def _pack(args: tuple[Any, ...]) -> tuple[Any, ...]:
    x, window, *rest = args
    return (x, *window, *rest)


def _unpack(packed: tuple[Any, ...]) -> tuple[Any, ...]:
    x, kernel, stride, padding, ceil_mode, *rest = packed
    return (x, Window(tuple(kernel), tuple(stride), tuple(padding), ceil_mode), *rest)


def _pack_backward(args: tuple[Any, ...]) -> tuple[Any, ...]:
    grad, winners, window, size, backend = args
    return (grad, winners, *window, size, backend)


def _unpack_backward(packed: tuple[Any, ...]) -> tuple[Any, ...]:
    grad, winners, kernel, stride, padding, ceil_mode, size, backend = packed
    window = Window(tuple(kernel), tuple(stride), tuple(padding), ceil_mode)
    return grad, winners, window, tuple(size), backend


_OP = Operator(
    "max_pool2d",
    f"(Tensor x, {WINDOW_SCHEMA}, bool relu, bool need_winners, str? backend) -> (Tensor, Tensor)",
    _compute,
    _fake,
    (_pack, _unpack),
)
_OP.set_autograd(_MaxPool2d.apply)
_BACKWARD = Operator(
    "max_pool2d_backward",
    f"(Tensor grad, Tensor winners, {WINDOW_SCHEMA}, SymInt[2] size, str? backend) -> Tensor",
    _compute_backward,
    _fake_backward,
    (_pack_backward, _unpack_backward),
)
_BACKWARD.set_autograd(_MaxPool2dBackward.apply)
