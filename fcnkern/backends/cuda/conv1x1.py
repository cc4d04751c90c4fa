"""`conv1x1` with CUDA kernels.

A skinny layer, of up to 64 outputs, has our own product: exact multiply-adds in fp32, never TF32, and the tensor
cores for 16-bit types. By count memory bounds the latter; in fp32 the multiply-adds do from about 20 outputs on. A
wide layer is bound by arithmetic, at which cuBLAS is better: its product is PyTorch's, under PyTorch's settings of
precision, and one pass of ours adds bias, ReLU and dropout, or undoes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._arguments import tensor_view
from fcnkern.backends._conv1x1_ranges import pixel_ranges
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.ops._checks import dense_format

SKINNY = 64
"""Most outputs that one tile holds, so that features are read once."""
_COLUMNS = 128
"""Channels of a block that sums a weight's gradient."""
_BLOCKS = 528
"""Blocks wanted, four for each SM of the largest GPUs: a constant, so that every GPU sums in the same order."""


def conv1x1_fwd(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dropout_p: float, seed: Tensor | None
) -> Tensor:
    """Dropout(ReLU(weight x + bias)), skinny in one pass over the features."""
    n, _, h, w = x.shape
    shape = (n, weight.shape[0], h, w)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=dense_format(x))
    if weight.shape[0] <= SKINNY:
        score(x, weight, bias, out, 1.0, relu, dropout_p, seed)
        return out
    _multiply(x, weight.flatten(1).t(), out, 1.0)
    if bias is not None or relu or seed is not None:
        drop = _dropout(dropout_p, seed)
        views = (tensor_view(bias), tensor_view(out))
        kernels.conv1x1_epilogue(_sizes(x, weight), *views, 1.0, relu, drop, stream_of(x))
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
    seed = seed if dropout_p > 0 else None
    if relu or seed is not None:
        grad = _passing(grad, x, out if relu else None, dropout_p, seed)
    kept_scale = 1.0 if seed is None else 1 / (1 - dropout_p)
    backward = score_backward if weight.shape[0] <= SKINNY else wide_backward
    backward(grad, x, weight, 1.0, grad_x, grad_weight, grad_bias, kept_scale)
    return grad_x, grad_weight, grad_bias


def score(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    scale: float = 1.0,
    relu: bool = False,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> None:
    """Writes Dropout(ReLU(scale · weight x + bias)) to ``out``; all of any strides, any number of outputs."""
    views = (tensor_view(x), tensor_view(weight), tensor_view(bias), tensor_view(out))
    drop = _dropout(dropout_p, seed)
    kernels.conv1x1_forward(_sizes(x, weight), *views, scale, relu, drop, stream_of(x))


def score_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: float,
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    grad_scale: float = 1.0,
) -> None:
    """Writes the gradients of scale · weight x + bias, at most 64 outputs, for ``grad_scale`` · grad.

    ``grad_weight`` and ``grad_bias`` are dense; what is None is not formed.
    """
    if grad_x is not None:
        score(grad, weight.transpose(0, 1), None, grad_x, scale * grad_scale)
    given = [each for each in (grad_weight, grad_bias) if each is not None]
    if grad.numel() == 0:
        for each in given:
            each.zero_()
    elif given:
        outputs, inputs = weight.shape[:2]
        pixels = grad.numel() // outputs
        span, ranges = _ranges(pixels, outputs, inputs)
        sums = torch.empty((ranges, outputs * (inputs + 1)), dtype=torch.float32, device=grad.device)
        views = (tensor_view(x), tensor_view(grad), tensor_view(grad_weight), tensor_view(grad_bias))
        scales = (scale * grad_scale, grad_scale)
        where = ((span, ranges), sums.data_ptr(), stream_of(grad))
        kernels.conv1x1_grad_weight(_sizes(x, weight), *views, scales, *where)


def _ranges(pixels: int, outputs: int, inputs: int) -> tuple[int, int]:
    """How many pixels are summed together, and how many such ranges there are."""
    tiles = -(-inputs // _COLUMNS)
    return pixel_ranges(pixels, outputs, inputs, _BLOCKS // tiles)


def wide_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: float,
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    grad_scale: float,
) -> None:
    """`score_backward` with PyTorch's products and sum."""
    if grad_x is not None:
        _multiply(grad, weight.flatten(1), grad_x, scale * grad_scale)
    if grad_weight is not None:
        rows, features = (_matrices(each).reshape(-1, each.shape[1]) for each in (grad, x))
        result = grad_weight.flatten(1)
        torch.addmm(result, rows.t(), features, beta=0, alpha=scale * grad_scale, out=result)
    if grad_bias is not None:
        grad_bias.copy_(grad.sum((0, 2, 3), dtype=torch.float32).mul_(grad_scale))


def _multiply(x: Tensor, weight: Tensor, out: Tensor, scale: float) -> None:
    """Writes scale · x weight to ``out``, which is dense; ``weight`` is a matrix. Copies an x of another layout."""
    result, features = _matrices(out), _matrices(x)
    if len(features) != len(result):
        features = _images(x).reshape(len(result), -1, x.shape[1])
    if len(result) == 1:
        torch.addmm(result[0], features[0], weight, beta=0, alpha=scale, out=result[0])
    else:
        torch.baddbmm(result, features, weight.expand(len(result), -1, -1), beta=0, alpha=scale, out=result)


def _matrices(tensor: Tensor) -> Tensor:
    """N×C×H×W as 1×(N·H·W)×C where it is channels_last, else as N×(H·W)×C; no copy where it is dense."""
    if dense_format(tensor) is torch.channels_last:
        return tensor.permute(0, 2, 3, 1).flatten(0, 2)[None]
    return _images(tensor)


def _images(tensor: Tensor) -> Tensor:
    return tensor.flatten(2).transpose(1, 2)


def _passing(grad: Tensor, x: Tensor, out: Tensor | None, dropout_p: float, seed: Tensor | None) -> Tensor:
    """The gradient that ReLU and dropout let pass, less dropout's factor, laid out as x."""
    shape, layout = grad.shape, dense_format(x)
    result = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    views = (tensor_view(grad), tensor_view(out), tensor_view(result))
    n, outputs, h, w = shape
    sizes = (n, x.shape[1], outputs, h, w)
    kernels.conv1x1_mask(sizes, *views, _dropout(dropout_p, seed), stream_of(grad))
    return result


def _sizes(x: Tensor, weight: Tensor) -> tuple[int, ...]:
    n, inputs, h, w = x.shape
    return n, inputs, weight.shape[0], h, w


def _dropout(dropout_p: float, seed: Tensor | None) -> tuple[float, int]:
    return (0.0, 0) if seed is None else (dropout_p, seed.data_ptr())
