"""Tensors and label maps as the C++ kernels take them: addresses, type codes, sizes and strides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fcnkern.resample import Pair, Resample

FLOAT_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
LABEL_TYPES = {torch.uint8: 0, torch.int16: 1, torch.int32: 2, torch.int64: 3}


def label_map(labels: Tensor) -> tuple[int, int, tuple[int, ...]]:
    """An (N, H, W) label map as (address, type code, strides)."""
    return labels.data_ptr(), LABEL_TYPES[labels.dtype], labels.stride()


TensorArguments = tuple[int, int, tuple[int, ...]]


def tensor_view(tensor: Tensor | None) -> TensorArguments | None:
    """A floating-point tensor of up to four axes as (address, type code, strides), missing axes with stride 0."""
    if tensor is None:
        return None
    strides = tensor.stride() + (0,) * (4 - tensor.ndim)
    return tensor.data_ptr(), FLOAT_TYPES[tensor.dtype], strides


def upsampling(scores: Tensor, resample: Resample, size: Pair) -> tuple[Any, ...]:
    """(N, C, h, w) scores and how they are upsampled to ``size``, in the order that the kernels take them.

    The last entry says that a tap of weight 0 is no tap: of these kinds `deconv` and `identity` have none
    there, while the others multiply as F.interpolate does, so that 0 · inf is NaN.
    """
    given = scores.data_ptr(), FLOAT_TYPES[scores.dtype], tuple(scores.shape), scores.stride()
    rows, columns = resample.axes((scores.shape[2], scores.shape[3]), size)
    return given, rows, columns, resample.kind in {"deconv", "identity"}
