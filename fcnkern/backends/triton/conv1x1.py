"""`conv1x1` with Triton kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends.triton._conv1x1_forward import score
from fcnkern.backends.triton._conv1x1_grad_weight import score_grad_weight
from fcnkern.backends.triton._conv1x1_grad_x import score_grad_x
from fcnkern.backends.triton._launch import on_device
from fcnkern.ops._checks import dense_format


def conv1x1_fwd(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dropout_p: float, seed: Tensor | None
) -> Tensor:
    """Dropout(ReLU(weight x + bias)), in one pass over the features."""
    n, _, h, w = x.shape
    shape = (n, weight.shape[0], h, w)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=dense_format(x))
    with on_device(x):
        score(x, weight, bias, out, 1.0, relu, dropout_p, seed)
    return out


def conv1x1_bwd(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor | None,
    relu: bool,
    dropout_p: float,
    seed: Tensor | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients for x, weight and bias; ``out`` is read with ``relu`` only."""
    grad_x = torch.empty_like(x, memory_format=dense_format(x)) if needs[0] else None
    grad_weight = weight.new_empty(weight.shape) if needs[1] else None
    grad_bias = weight.new_empty(weight.shape[0]) if needs[2] else None
    out = out if relu else None
    with on_device(x):
        if grad_x is not None:
            score_grad_x(grad, weight, out, grad_x, 1.0, dropout_p, seed)
        score_grad_weight(grad, x, out, grad_weight, grad_bias, 1.0, dropout_p, seed)
    return grad_x, grad_weight, grad_bias
