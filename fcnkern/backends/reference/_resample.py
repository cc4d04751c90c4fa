"""Upsampling by a `Resample` or by a learned transposed convolution, and its adjoint."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from fcnkern.ops.upsample_add import is_depthwise
from fcnkern.resample import Axis, Pair, Resample


class Taps(NamedTuple):
    """For each output of an axis: two source indices and their weights."""

    i0: Tensor
    i1: Tensor
    w0: Tensor
    w1: Tensor


def taps(axis: Axis, like: Tensor) -> Taps:
    """The taps of an axis, with weights of the type of ``like``. Taps outside the source have weight 0."""
    source = torch.arange(axis.n_out, dtype=torch.float64, device="cpu") * axis.step + axis.shift
    if not axis.zero:
        source = source.clamp(0, axis.n_in - 1)
    base = source.floor()
    frac = source - base
    i0, i1 = base.long(), base.long() + 1
    w0, w1 = 1 - frac, frac
    if axis.zero:
        w0 = w0 * ((i0 >= 0) & (i0 < axis.n_in))
        w1 = w1 * ((i1 >= 0) & (i1 < axis.n_in))
    i0, i1 = (index.clamp(0, axis.n_in - 1).to(like.device) for index in (i0, i1))
    return Taps(i0, i1, w0.to(like), w1.to(like))


def _blend(scores: Tensor, dim: int, tap: Taps, skip_zero: bool) -> Tensor:
    shape = [1] * scores.dim()
    shape[dim] = -1
    total = torch.zeros((), dtype=scores.dtype, device=scores.device)
    for index, weight in ((tap.i0, tap.w0), (tap.i1, tap.w1)):
        weight = weight.view(shape)
        part = scores.index_select(dim, index) * weight
        total = total + (part.masked_fill(weight == 0, 0) if skip_zero else part)
    return total


def _gather_back(grad: Tensor, dim: int, tap: Taps, n_in: int) -> Tensor:
    shape = [1] * grad.dim()
    shape[dim] = -1
    sizes = list(grad.shape)
    sizes[dim] = n_in
    result = grad.new_zeros(sizes)
    for index, weight in ((tap.i0, tap.w0), (tap.i1, tap.w1)):
        weight = weight.view(shape)
        result.index_add_(dim, index, (grad * weight).masked_fill(weight == 0, 0))
    return result


def upsample(scores: Tensor, weight: Tensor | None, resample: Resample, size: Pair) -> Tensor:
    """N×C×H×W scores.

    A tap of weight 0 counts for nothing where the operation has no such tap (deconv, identity); in the others
    it multiplies, as in F.interpolate, so that 0 · inf is NaN there too.
    """
    if weight is not None:
        groups = scores.shape[1] if is_depthwise(weight, scores.shape[1]) else 1
        full = F.conv_transpose2d(scores, weight, stride=resample.factor, groups=groups)
        (oy, ox), (height, width) = resample.offset, size
        return full[:, :, oy : oy + height, ox : ox + width]
    if resample.kind == "identity":
        return scores
    ay, ax = resample.axes((scores.shape[2], scores.shape[3]), size)
    rows = _blend(scores, 2, taps(ay, scores), resample.kind == "deconv")
    return _blend(rows, 3, taps(ax, scores), resample.kind == "deconv")


def upsample_backward(
    grad: Tensor, scores: Tensor, weight: Tensor | None, resample: Resample
) -> tuple[Tensor, Tensor | None]:
    """Gradients of `upsample` for the scores and for the learned weight."""
    size = (grad.shape[2], grad.shape[3])
    if weight is None:
        if resample.kind == "identity":
            return grad, None
        ay, ax = resample.axes((scores.shape[2], scores.shape[3]), size)
        rows = _gather_back(grad, 3, taps(ax, grad), ax.n_in)
        return _gather_back(rows, 2, taps(ay, grad), ay.n_in), None
    full = Resample("deconv", resample.factor).out_size(
        (scores.shape[2], scores.shape[3]), (weight.shape[2], weight.shape[3])
    )
    (oy, ox), (height, width) = resample.offset, size
    whole = F.pad(grad, (ox, full[1] - ox - width, oy, full[0] - oy - height))
    return deconv_backward(whole, scores, weight, resample.factor)


def deconv_backward(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair) -> tuple[Tensor, Tensor]:
    """Gradients of F.conv_transpose2d for its input and its weight."""
    groups = x.shape[1] if is_depthwise(weight, x.shape[1]) else 1
    grad_x = F.conv2d(grad, weight, stride=stride, groups=groups)
    grad_weight = conv2d_weight(grad, list(weight.shape), x, stride=list(stride), groups=groups)
    return grad_x, grad_weight
