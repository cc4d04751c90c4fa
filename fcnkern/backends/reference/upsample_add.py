"""upsample_add in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from fcnkern._tensors import crop
from fcnkern.backends.reference._resample import deconv_backward
from fcnkern.ops.upsample_add import is_depthwise
from fcnkern.resample import Pair


def bilinear_kernel(stride: Pair, like: Tensor) -> Tensor:
    """kh×kw weights of Caffe's bilinear filler, k = 2s - s % 2."""
    lines = []
    for s in stride:
        k = 2 * s - s % 2
        centre = (k - 1) / 2
        lines.append(1 - (torch.arange(k, dtype=torch.float64, device="cpu") - centre).abs() / s)
    return torch.outer(*lines).to(like)


def _weight(x: Tensor, weight: Tensor | None, stride: Pair) -> tuple[Tensor, int]:
    channels = x.shape[1]
    if weight is None:
        return bilinear_kernel(stride, x).expand(channels, 1, -1, -1).contiguous(), channels
    return weight, channels if is_depthwise(weight, channels) else 1


def upsample_add_fwd(
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    stride: Pair,
    skip_offset: Pair,
    skip_scale: float,
) -> Tensor:
    """F.conv_transpose2d plus the cropped, scaled and perhaps scored skip."""
    kernel, groups = _weight(x, weight, stride)
    out = F.conv_transpose2d(x, kernel, stride=stride, groups=groups)
    if skip is None:
        return out
    window = crop(skip, skip_offset, (out.shape[2], out.shape[3])) * skip_scale
    return out + (window if skip_weight is None else F.conv2d(window, skip_weight, skip_bias))


def upsample_add_bwd(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    stride: Pair,
    skip_offset: Pair,
    skip_scale: float,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients for x, weight, skip, skip_weight and skip_bias."""
    need_x, need_weight, need_skip, need_skip_weight, need_skip_bias = needs
    grad_x = grad_weight = grad_skip = grad_skip_weight = None
    if need_x or need_weight:
        kernel, groups = _weight(x, weight, stride)
        if groups > 1 and weight is None:
            grad_x = F.conv2d(grad, kernel, stride=stride, groups=groups)
        else:
            grad_x, grad_weight = deconv_backward(grad, x, kernel, stride)
    size = (grad.shape[2], grad.shape[3])
    if skip is not None and need_skip:
        back = grad if skip_weight is None else F.conv2d(grad, skip_weight.transpose(0, 1))
        grad_skip = torch.zeros_like(skip)
        crop(grad_skip, skip_offset, size).copy_(back * skip_scale)
    if skip is not None and skip_weight is not None and need_skip_weight:
        window = crop(skip, skip_offset, size) * skip_scale
        grad_skip_weight = conv2d_weight(window, list(skip_weight.shape), grad)
    return (
        grad_x if need_x else None,
        grad_weight if need_weight else None,
        grad_skip,
        grad_skip_weight,
        grad.sum((0, 2, 3)) if need_skip_bias else None,
    )
