"""Compiled specimens of upsample_add: a skip step of FCN-8s at 21 classes, and the ×8 upsampling at its end."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.specimen import Case, Claims, Specimen

N, C, FEATURES = 16, 21, 512
SMALL, LARGE, FULL = 34, 70, 568  # input and output of the skip step, output of the last upsampling


def _image(channels: int, size: int, dtype: torch.dtype, last: bool) -> Tensor:
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(N, channels, size, size, dtype=dtype, memory_format=layout)


def _scored(dtype: torch.dtype, last: bool) -> tuple[Tensor, ...]:
    """x, dense ×2 weights, features and their weights."""
    x, skip = _image(C, SMALL, dtype, last), _image(FEATURES, LARGE + 14, dtype, last)
    return x, torch.empty(C, C, 4, 4, dtype=dtype), skip, torch.empty(C, FEATURES, 1, 1, dtype=dtype)


def _forward_scored(dtype: torch.dtype, last: bool = False) -> None:
    from fcnkern.backends.triton.upsample_add import upsample_add_fwd

    x, weight, skip, skip_weight = _scored(dtype, last)
    bias = torch.empty(C, dtype=dtype)
    upsample_add_fwd(x, weight, skip, skip_weight, bias, (2, 2), (5, 5), 1.0)


def _backward_scored(dtype: torch.dtype, last: bool = False) -> None:
    from fcnkern.backends.triton.upsample_add import upsample_add_bwd

    grad = _image(C, LARGE, dtype, last)
    x, weight, skip, skip_weight = _scored(dtype, last)
    upsample_add_bwd(grad, x, weight, skip, skip_weight, (2, 2), (5, 5), 1.0, (True,) * 5)


def _forward_fixed(dtype: torch.dtype, depthwise: bool = False) -> None:
    from fcnkern.backends.triton.upsample_add import deconv_rows_fwd

    weight = torch.empty(C, 1, 16, 16, dtype=dtype) if depthwise else None
    deconv_rows_fwd(_image(C, LARGE, dtype, False), weight, (8, 8), (0, FULL), (0, FULL))


def _backward_depthwise(dtype: torch.dtype) -> None:
    from fcnkern.backends.triton.upsample_add import deconv_rows_bwd

    grad, x = _image(C, FULL, dtype, False), _image(C, LARGE, dtype, False)
    weight = torch.empty(C, 1, 16, 16, dtype=dtype)
    deconv_rows_bwd(grad, x, weight, (8, 8), (0, FULL), (0, FULL), (True, True))


F32, BF16 = torch.float32, torch.bfloat16
_SCORED = N * FEATURES * LARGE * LARGE
_PLANE = N * FEATURES * (LARGE + 14) ** 2
_OUT = N * C * LARGE * LARGE
_FULL = N * C * FULL * FULL
_DENSE_FLOPS = 2 * 4 * C * _OUT
_SHAPE = f"{N}×{C}, {SMALL}² → {LARGE}², {FEATURES} features"


def _scored_case(size: int) -> Case:
    flops = 2 * C * _SCORED + _DENSE_FLOPS
    return Case(_SHAPE, "feature", _SCORED, size * (_SCORED + _OUT), flops)


def _features_case(size: int) -> Case:
    return Case(_SHAPE, "feature", _SCORED, size * (_SCORED + _PLANE + _OUT), 4 * C * _SCORED)


def _dense_case(size: int) -> Case:
    return Case(f"{N}×{C}, {SMALL}² → {LARGE}²", "output", _OUT, size * _OUT, _DENSE_FLOPS)


def _full_case(size: int) -> Case:
    return Case(f"{N}×{C}, {LARGE}² → {FULL}²", "output", _FULL, size * _FULL)


SPECIMENS = [
    Specimen(
        "forward, dense ×2, features scored, bf16",
        partial(_forward_scored, BF16),
        "_upsample_dense_fwd_kernel",
        _scored_case(2),
        trips=(4, 16),
        claims=Claims(tensor_cores=True),
    ),
    Specimen(
        "forward, dense ×2, features scored, bf16, channels_last",
        partial(_forward_scored, BF16, True),
        "_upsample_dense_fwd_kernel",
        _scored_case(2),
        trips=(4, 16),
        claims=Claims(tensor_cores=True, loads={"f = tl.load": 128}),
        archs=(90,),
    ),
    Specimen(
        "forward, dense ×2, features scored, fp32",
        partial(_forward_scored, F32),
        "_upsample_dense_fwd_kernel",
        _scored_case(4),
        trips=(4, 16),
        claims=Claims(tensor_cores=True),
    ),
    Specimen(
        "gradients of features and their weights, bf16",
        partial(_backward_scored, BF16),
        "_upsample_add_features_bwd_kernel",
        _features_case(2),
        trips={80: (55.25,), 90: (27.6,), 100: (27.6,)},
        claims=Claims(tensor_cores=True),
    ),
    Specimen(
        "gradients of features and their weights, fp32",
        partial(_backward_scored, F32),
        "_upsample_add_features_bwd_kernel",
        _features_case(4),
        trips=(110.25,),
        claims=Claims(tensor_cores=True),
    ),
    Specimen(
        "gradient of x, dense ×2, fp32",
        partial(_backward_scored, F32),
        "_upsample_dense_grad_x_kernel",
        _dense_case(4),
        trips=(12,),
        claims=Claims(tensor_cores=True),
        archs=(90,),
    ),
    Specimen(
        "gradient of the weights, dense ×2, fp32",
        partial(_backward_scored, F32),
        "_upsample_dense_grad_weight_kernel",
        _dense_case(4),
        trips=(9.25,),
        claims=Claims(tensor_cores=True),
        archs=(90,),
    ),
    Specimen(
        "forward, bilinear ×8, fp32",
        partial(_forward_fixed, F32),
        "_upsample_bilinear_fwd_kernel",
        _full_case(4),
        trips={80: (3.94,), 90: (3.94,), 100: (3.94, 8)},
    ),
    Specimen(
        "forward, depthwise ×8, fp32",
        partial(_forward_fixed, F32, True),
        "_upsample_depthwise_fwd_kernel",
        _full_case(4),
        trips=(14.2,),
        archs=(90,),
    ),
    Specimen(
        "gradient of x, depthwise ×8, fp32",
        partial(_backward_depthwise, F32),
        "_upsample_gather_grad_x_kernel",
        _full_case(4),
        trips=(16,),
        archs=(90,),
    ),
    Specimen(
        "gradient of the weights, depthwise ×8, fp32",
        partial(_backward_depthwise, F32),
        "_upsample_depthwise_grad_weight_kernel",
        _full_case(4),
        trips=(205,),
        claims=Claims(wide=("grad_strides", "x_strides")),
        archs=(90,),
    ),
]
