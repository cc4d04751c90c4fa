"""upsample_add: transposed-convolution upsampling with crop-and-sum skip fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fcnkern.backends.select import implementation
from fcnkern.ops import _checks as checks
from fcnkern.ops._library import Compute, Operator, once_differentiable, with_empties
from fcnkern.resample import as_pair


def upsample_add(
    x: Tensor,
    weight: Tensor | None = None,
    skip: Tensor | None = None,
    *,
    stride: int | tuple[int, int],
    skip_offset: int | tuple[int, int] = (0, 0),
    skip_weight: Tensor | None = None,
    skip_bias: Tensor | None = None,
    skip_scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Upsamples scores and adds a cropped skip: the skip step of FCN-16s and FCN-8s as one operation.

    ``out[n,c,Y,X] = Σ x ⊛ᵀ weight + S[n,c,Y+oy,X+ox]``: a transposed convolution without padding plus the crop of
    the skip scores S (Long et al. 2015, section 4.2). With ``skip_weight`` the skip is a feature map and S is its
    1×1 scoring, formed only on the cropped window.

    Args:
        x: N×Cin×h×w scores, fp32, fp64, bf16 or fp16, any strides.
        weight: dense Cin×Cout×kh×kw, depthwise C×1×kh×kw (read so where Cin = C > 1), or None for fixed bilinear
            weights with kernel 2s - s % 2, as Caffe fills them.
        skip: scores N×Cout×Hs×Ws, or features N×Cs×Hs×Ws with ``skip_weight``; None adds nothing.
        stride: (sy, sx) of the transposed convolution.
        skip_offset: (oy, ox) of the crop, in pixels of the skip.
        skip_weight: Cout×Cs×1×1. skip_bias: Cout.
        skip_scale: factor on the skip (on its features where it is scored inside: Caffe's Scale layer).
        backend: name that forces a backend.

    Returns:
        N×Cout×((h-1)·sy+kh)×((w-1)·sx+kw), of x's type. Under autocast it runs in its lower precision.

    Raises:
        TypeError, ValueError: an argument has another type, rank, shape or device than stated above, or the skip
            is too small for the crop.
    """
    checks.check_images("x", x, 4, checks.FLOATS)
    strides = as_pair("stride", stride, 1)
    offset = as_pair("skip_offset", skip_offset, 0)
    x = checks.autocast(x)
    weight, skip = _cast("weight", weight, 4), _cast("skip", skip, 4)
    skip_weight, skip_bias = _cast("skip_weight", skip_weight, 4), _cast("skip_bias", skip_bias, 1)
    _check_weight(x, weight)
    _, channels, height, width = out_shape(x, weight, strides)
    if skip is None:
        if skip_weight is not None or skip_bias is not None:
            raise ValueError("skip_weight and skip_bias need skip, got skip=None")
    else:
        _check_skip(x, skip, skip_weight, skip_bias, channels)
        if skip.shape[2] < offset[0] + height or skip.shape[3] < offset[1] + width:
            raise ValueError(
                f"skip is too small for the crop: {skip.shape[2]}×{skip.shape[3]}, wanted at least "
                f"{offset[0] + height}×{offset[1] + width} (offset {offset} + output {height}×{width})"
            )
    return _OP(x, weight, skip, skip_weight, skip_bias, strides, offset, skip_scale, backend)


def _cast(name: str, tensor: Tensor | None, dims: int) -> Tensor | None:
    if tensor is None:
        return None
    checks.check_images(name, tensor, dims, checks.FLOATS)
    return checks.autocast(tensor)


def _check_weight(x: Tensor, weight: Tensor | None) -> None:
    if weight is None:
        return
    checks.check_same("weight", weight, "x", x)
    if weight.shape[0] != x.shape[1]:
        raise ValueError(
            f"weight must have {x.shape[1]} input channels (those of x), got {checks.shape_text(weight)}"
        )


def _check_skip(
    x: Tensor, skip: Tensor, skip_weight: Tensor | None, skip_bias: Tensor | None, channels: int
) -> None:
    checks.check_same("skip", skip, "x", x)
    if skip.shape[0] != x.shape[0]:
        raise ValueError(f"skip must hold {x.shape[0]} images (those of x), got {checks.shape_text(skip)}")
    if skip_weight is None:
        if skip_bias is not None:
            raise ValueError("skip_bias needs skip_weight, got skip_weight=None")
        if skip.shape[1] != channels:
            raise ValueError(
                f"skip must have {channels} channels (the outputs), got {checks.shape_text(skip)}"
            )
        return
    checks.check_same("skip_weight", skip_weight, "x", x)
    checks.check_shape(
        "skip_weight", skip_weight, (channels, skip.shape[1], 1, 1), "outputs × channels of skip"
    )
    if skip_bias is not None:
        checks.check_same("skip_bias", skip_bias, "x", x)
        checks.check_shape("skip_bias", skip_bias, (channels,), "outputs")


def is_depthwise(weight: Tensor, channels: int) -> bool:
    """Whether a C×1×kh×kw weight is one kernel per channel rather than C inputs summed into one output."""
    return weight.shape[1] == 1 and channels > 1


def outputs_of(x: Tensor, weight: Tensor | None) -> int:
    """Channels of the transposed convolution of ``x``; without a weight it is bilinear, as many as there are."""
    channels = x.shape[1]
    return channels if weight is None or is_depthwise(weight, channels) else weight.shape[1]


def out_shape(x: Tensor, weight: Tensor | None, stride: Sequence[int]) -> tuple[int, int, int, int]:
    """Shape of the transposed convolution of ``x``."""
    n, _, h, w = x.shape
    sy, sx = stride
    kh, kw = (2 * sy - sy % 2, 2 * sx - sx % 2) if weight is None else weight.shape[2:]
    return n, outputs_of(x, weight), (h - 1) * sy + kh, (w - 1) * sx + kw


def _compute(
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    stride: Sequence[int],
    skip_offset: Sequence[int],
    skip_scale: float,
    backend: str | None,
) -> Tensor:
    run = implementation("upsample_add", x, backend)
    offset = tuple(skip_offset)
    out = run.upsample_add_fwd(x, weight, skip, skip_weight, skip_bias, tuple(stride), offset, skip_scale)
    return checks.densely(out, x)


def _fake(x: Tensor, weight: Tensor | None, *rest: Any) -> Tensor:
    shape = out_shape(x, weight, rest[3])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=checks.dense_format(x))


def _compute_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    stride: Sequence[int],
    skip_offset: Sequence[int],
    skip_scale: float,
    needs: Sequence[bool],
    backend: str | None,
) -> tuple[Tensor | None, ...]:
    run = implementation("upsample_add", x, backend)
    offset = tuple(skip_offset)
    settings = (tuple(stride), offset, skip_scale, tuple(needs))
    grads = run.upsample_add_bwd(grad, x, weight, skip, skip_weight, *settings)
    likes = (x, weight, skip, skip_weight, grads[4])
    return tuple(
        None if each is None or like is None else checks.densely(each, like)
        for each, like in zip(grads, likes, strict=True)
    )


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    needs = rest[-2]
    likes = (x, weight, skip, skip_weight, x.new_empty(grad.shape[1]))
    grads = (
        torch.empty_like(like, memory_format=checks.dense_format(like)) if need and like is not None else None
        for like, need in zip(likes, needs, strict=True)
    )
    return with_empties(tuple(grads))


class _UpsampleAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Compute, *args: Any) -> Tensor:
        x, weight, skip, skip_weight, _skip_bias, *settings, backend = args
        out: Tensor = run(*args)
        ctx.save_for_backward(x, weight, skip, skip_weight)
        ctx.settings = settings
        ctx.backend = backend
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[1:6])
        grads = _BACKWARD(grad, *ctx.saved_tensors, *ctx.settings, needs, ctx.backend)
        needed = (each if need else None for each, need in zip(grads, needs, strict=True))
        return (None, *needed, None, None, None, None)


_OP = Operator(
    "upsample_add",
    "(Tensor x, Tensor? weight, Tensor? skip, Tensor? skip_weight, Tensor? skip_bias, SymInt[2] stride, "
    "SymInt[2] skip_offset, float skip_scale, str? backend) -> Tensor",
    _compute,
    _fake,
)
_OP.set_autograd(_UpsampleAdd.apply)
_BACKWARD = Operator(
    "upsample_add_backward",
    "(Tensor grad, Tensor x, Tensor? weight, Tensor? skip, Tensor? skip_weight, SymInt[2] stride, "
    "SymInt[2] skip_offset, float skip_scale, bool[] needs, str? backend) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _compute_backward,
    _fake_backward,
    fill=with_empties,
)
