"""`conv1x1` with the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.backends._arguments import tensor_view
from fcnkern.backends.cpu._extension import kernels
from fcnkern.backends.cpu._memory import in_huge_pages
from fcnkern.ops._checks import dense_format

_SEED_MASK = 2**64 - 1


def conv1x1_fwd(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dropout_p: float, seed: Tensor | None
) -> Tensor:
    """Dropout(ReLU(weight x + bias)), in one pass over the features."""
    n, _, h, w = x.shape
    shape = (n, weight.shape[0], h, w)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=dense_format(x))
    score(x, weight, bias, in_huge_pages(out), 1.0, relu, dropout_p if seed is not None else 0.0, seed)
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
    if relu or seed is not None:
        grad = _before_epilogue(grad, out if relu else None, dropout_p, seed)
    grad_x = in_huge_pages(torch.empty_like(x, memory_format=dense_format(x))) if needs[0] else None
    grad_weight = weight.new_empty(weight.shape) if needs[1] else None
    grad_bias = weight.new_empty(weight.shape[0]) if needs[2] else None
    score_backward(grad, x, weight, 1.0, grad_x, grad_weight, grad_bias)
    return grad_x, grad_weight, grad_bias


def score(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    scale: float,
    relu: bool = False,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> None:
    """Writes Dropout(ReLU(weight (scale x) + bias)) to ``out``; all of any strides."""
    n, inputs, h, w = x.shape
    views = (tensor_view(x), tensor_view(weight), tensor_view(bias), tensor_view(out))
    sizes = (n, inputs, weight.shape[0], h, w)
    kernels.conv1x1_forward(sizes, *views, scale, relu, dropout_p, _seed_bits(seed), torch.get_num_threads())


def score_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: float,
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
) -> None:
    """Writes the gradients of weight (scale x) + bias to the tensors that are given."""
    if grad_x is not None:
        score(grad, weight.transpose(0, 1), None, grad_x, scale)
    if grad_weight is None and grad_bias is None:
        return
    n, inputs, h, w = x.shape
    views = (tensor_view(x), tensor_view(grad_weight), tensor_view(grad_bias), tensor_view(grad))
    sizes = (n, inputs, weight.shape[0], h, w)
    kernels.conv1x1_grad_weight(sizes, *views, scale, torch.get_num_threads())


def _before_epilogue(grad: Tensor, out: Tensor | None, dropout_p: float, seed: Tensor | None) -> Tensor:
    """The gradient before ReLU and dropout, in the accumulation type."""
    result = torch.empty_like(grad, dtype=accumulation_type(grad.dtype), memory_format=dense_format(grad))
    views = (tensor_view(grad), tensor_view(out), tensor_view(in_huge_pages(result)))
    p = dropout_p if seed is not None else 0.0
    kernels.conv1x1_mask(tuple(grad.shape), *views, p, _seed_bits(seed), torch.get_num_threads())
    return result


def _seed_bits(seed: Tensor | None) -> int:
    return 0 if seed is None else int(seed) & _SEED_MASK
