"""upsample_argmax: the label map of upsampled scores, without the upsampled scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.backends.select import implementation
from fcnkern.ops import _checks as checks
from fcnkern.ops._library import Operator
from fcnkern.ops._resampled import check_resampled
from fcnkern.ops.upsample_add import outputs_of
from fcnkern.resample import Resample


@overload
def upsample_argmax(
    scores: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = ...,
    out_dtype: torch.dtype = ...,
    return_confidence: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def upsample_argmax(
    scores: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = ...,
    out_dtype: torch.dtype = ...,
    return_confidence: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def upsample_argmax(
    scores: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = ...,
    out_dtype: torch.dtype = ...,
    return_confidence: bool,
    backend: str | None = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...
def upsample_argmax(
    scores: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = None,
    out_dtype: torch.dtype = torch.uint8,
    return_confidence: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Class of the largest upsampled score at each output pixel; ties go to the lowest class.

    Args:
        scores: N×C×h×w low-resolution scores, fp32, fp64, bf16 or fp16, any strides.
        resample: how scores become H×W.
        weight: a learned transposed-convolution weight, dense C'×C×kh×kw or depthwise C×1×kh×kw; ``resample`` is
            then a `Resample.deconv` that gives stride and crop.
        out_dtype: uint8, int16, int32 or int64; uint8 holds up to 256 classes, int16 32768.
        return_confidence: whether to return the softmax probability of that class too.
        backend: name that forces a backend.

    Returns:
        N×H×W labels, or with ``return_confidence`` (labels, N×H×W fp32 (fp64 for fp64) probabilities). Neither has
        a gradient.

    Raises:
        TypeError, ValueError: an argument has another type, rank, shape or device than stated above.
    """
    check_resampled(scores, weight, resample, None)
    kernel = None if weight is None else (weight.shape[2], weight.shape[3])
    in_size = (scores.shape[2], scores.shape[3])
    size = resample.out_size(in_size, kernel)
    if min(size) < 1:
        raise ValueError(f"resample: {resample.spec} of {in_size[0]}×{in_size[1]} scores leaves no output")
    resample.check(in_size, size, kernel)
    if out_dtype not in checks.LABELS:
        raise TypeError(f"out_dtype must be uint8, int16, int32 or int64, got {out_dtype}")
    classes = outputs_of(scores, weight)
    holds = torch.iinfo(out_dtype).max + 1
    if classes > holds:
        wider = next(kind for kind in checks.LABELS if classes <= torch.iinfo(kind).max + 1)
        name = str(out_dtype).removeprefix("torch.")
        raise ValueError(f"out_dtype {name} holds {holds} classes, got {classes}; ask for {wider}")
    given = None if weight is None else weight.detach()
    labels, confidence = _OP(
        scores.detach(), given, resample.spec, size, out_dtype, return_confidence, backend
    )
    return (labels, confidence) if return_confidence else labels


def _compute(
    scores: Tensor,
    weight: Tensor | None,
    resample: str,
    size: Sequence[int],
    out_dtype: torch.dtype,
    confidence: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    run = implementation("upsample_argmax", scores, backend)
    shape = Resample.parse(resample)
    labels, probability = run.upsample_argmax(
        scores, weight, shape, (size[0], size[1]), out_dtype, confidence
    )
    return labels, _empty_confidence(scores, (0,)) if probability is None else probability


def _empty_confidence(scores: Tensor, shape: Sequence[int]) -> Tensor:
    return scores.new_empty(shape, dtype=accumulation_type(scores.dtype))


def _fake(
    scores: Tensor,
    weight: Tensor | None,
    resample: str,
    size: Sequence[int],
    out_dtype: torch.dtype,
    confidence: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    shape = (scores.shape[0], *size)
    return scores.new_empty(shape, dtype=out_dtype), _empty_confidence(scores, shape if confidence else (0,))


_OP = Operator(
    "upsample_argmax",
    "(Tensor scores, Tensor? weight, str resample, SymInt[2] size, ScalarType out_dtype, bool confidence, "
    "str? backend) -> (Tensor, Tensor)",
    _compute,
    _fake,
)
