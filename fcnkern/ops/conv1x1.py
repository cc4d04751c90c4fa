"""conv1x1: the fused 1×1 classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fcnkern.backends.select import implementation
from fcnkern.ops import _checks as checks
from fcnkern.ops._library import Compute, Operator, once_differentiable, with_empties


def conv1x1(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """1×1 convolution with bias, ReLU and inverted element-wise dropout in one pass.

    The scoring layers of Long et al. 2015 (section 4.1) and their fc7. The dropout mask is a function of the
    seed and the element (Philox4x32-10): the backward forms it again instead of storing it.

    Args:
        x: N×C×H×W features, fp32, fp64, bf16 or fp16, any strides.
        weight: O×C×1×1, of x's type.
        bias: O, of x's type, or None.
        relu: whether negative outputs become 0.
        dropout_p: probability in [0, 1) of dropping an output; the others are scaled by 1 / (1 - dropout_p).
        seed: whole number or int64 tensor; None draws one from torch's generator where dropout needs it.
        backend: name that forces a backend.

    Returns:
        N×O×H×W, of x's type. Under autocast the product runs in its lower precision, as F.conv2d does.

    Raises:
        TypeError, ValueError: an argument has another type, rank, shape or device than stated above.
    """
    checks.check_images("x", x, 4, checks.FLOATS)
    checks.check_images("weight", weight, 4, checks.FLOATS)
    checks.check_shape("weight", weight, (weight.shape[0], x.shape[1], 1, 1), "O×C×1×1, C of x")
    x, weight = checks.autocast(x), checks.autocast(weight)
    checks.check_same("weight", weight, "x", x)
    if bias is not None:
        checks.check_tensor("bias", bias, 1, checks.FLOATS)
        bias = checks.autocast(bias)
        checks.check_shape("bias", bias, (weight.shape[0],), "O of weight")
        checks.check_same("bias", bias, "x", x)
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p must lie in [0, 1), got {dropout_p}")
    drawn = checks.seed_tensor(seed, x.device) if dropout_p > 0 else None
    return _OP(x, weight, bias, drawn, relu, dropout_p, backend)


def _compute(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    relu: bool,
    dropout_p: float,
    backend: str | None,
) -> Tensor:
    run = implementation("conv1x1", x, backend)
    return checks.densely(run.conv1x1_fwd(x, weight, bias, relu, dropout_p, seed), x)


def _fake(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    n, _, h, w = x.shape
    layout = checks.dense_format(x)
    return torch.empty((n, weight.shape[0], h, w), dtype=x.dtype, device=x.device, memory_format=layout)


def _compute_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor | None,
    seed: Tensor | None,
    relu: bool,
    dropout_p: float,
    needs: Sequence[bool],
    backend: str | None,
) -> tuple[Tensor | None, ...]:
    run = implementation("conv1x1", x, backend)
    grad_x, *rest = run.conv1x1_bwd(grad, x, weight, out, relu, dropout_p, seed, tuple(needs))
    return (None if grad_x is None else checks.densely(grad_x, x), *rest)


def _fake_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    needs = rest[-2]
    grads = (
        torch.empty_like(x, memory_format=checks.dense_format(x)),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0]),
    )
    return with_empties(tuple(each if need else None for each, need in zip(grads, needs, strict=True)))


class _Conv1x1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Compute, *args: Any) -> Tensor:
        x, weight, _bias, seed, relu, dropout_p, backend = args
        out: Tensor = run(*args)
        ctx.save_for_backward(x, weight, out if relu else None, seed)
        ctx.settings = (relu, dropout_p)
        ctx.backend = backend
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[1:4])
        x, weight, out, seed = ctx.saved_tensors
        grads = _BACKWARD(grad, x, weight, out, seed, *ctx.settings, needs, ctx.backend)
        needed = (each if need else None for each, need in zip(grads, needs, strict=True))
        return (None, *needed, None, None, None, None)


_OP = Operator(
    "conv1x1",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? seed, bool relu, float dropout_p, str? backend) -> Tensor",
    _compute,
    _fake,
)
_OP.set_autograd(_Conv1x1.apply)
_BACKWARD = Operator(
    "conv1x1_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor? out, Tensor? seed, bool relu, float dropout_p, "
    "bool[] needs, str? backend) -> (Tensor, Tensor, Tensor)",
    _compute_backward,
    _fake_backward,
    fill=with_empties,
)
