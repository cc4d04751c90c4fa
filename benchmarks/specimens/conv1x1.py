"""Compiled specimens of conv1x1: a skinny classifier and a wide layer with ReLU and dropout, both ways."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.specimen import Case, Claims, Specimen

Shape = tuple[int, int, int, int, int]
CITY: Shape = (8, 512, 19, 128, 256)  # N, C_in, C_out, H, W
FC7: Shape = (16, 4096, 4096, 16, 16)
BYTES = {torch.bfloat16: 2, torch.float32: 4}
RANGES = 128  # of 2048 pixels, whose weight gradients are summed together, in CITY


def _tensors(shape: Shape, dtype: torch.dtype, nhwc: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias and a gradient or an output that hold nothing in particular."""
    n, inputs, outputs, h, w = shape
    layout = torch.channels_last if nhwc else torch.contiguous_format
    x, grad = (
        torch.empty((n, channels, h, w), dtype=dtype, memory_format=layout) for channels in (inputs, outputs)
    )
    return x, torch.empty((outputs, inputs, 1, 1), dtype=dtype), torch.empty(outputs, dtype=dtype), grad


def _forward(shape: Shape, dtype: torch.dtype, nhwc: bool) -> None:
    from fcnkern.backends.triton.conv1x1 import conv1x1_fwd

    x, weight, bias, _ = _tensors(shape, dtype, nhwc)
    epilogue = (True, 0.5, torch.empty((), dtype=torch.int64)) if shape == FC7 else (False, 0.0, None)
    conv1x1_fwd(x, weight, bias, *epilogue)


def _backward(shape: Shape, dtype: torch.dtype, nhwc: bool, needs: tuple[bool, bool, bool]) -> None:
    from fcnkern.backends.triton.conv1x1 import conv1x1_bwd

    x, weight, _, grad = _tensors(shape, dtype, nhwc)
    out = torch.empty_like(grad) if shape == FC7 else None
    conv1x1_bwd(grad, x, weight, out, out is not None, 0.0, None, needs)


_grad_x = partial(_backward, needs=(True, False, False))
_grad_weight = partial(_backward, needs=(False, True, True))


def _in_configuration(module: str, tile: dict[str, int], stages: int, launch: partial[None]) -> None:
    """A wide layer in another configuration than the default."""
    import triton

    tuned = importlib.import_module(f"fcnkern.backends.triton.{module}")._WIDE
    config = triton.Config(tile, num_warps=8, num_stages=stages)
    with mock.patch.object(tuned, "default", return_value=config):
        launch()


def _case(shape: Shape, dtype: torch.dtype, extra_bytes: float = 0) -> Case:
    n, inputs, outputs, h, w = shape
    pixels, products = n * h * w, n * h * w * inputs * outputs
    tensor_core_flops = 2 * products * (6 if dtype == torch.float32 else 1)  # three products of TF32 parts
    wide = outputs > 64
    size = BYTES[dtype]
    return Case(
        f"{n}×{inputs}×{h}×{w} → {outputs}",
        unit="multiply-add" if wide else "input element",
        units=products if wide else pixels * inputs,
        bytes=(pixels * (inputs + outputs) + inputs * outputs) * size + extra_bytes,
        flops=tensor_core_flops,
    )


def _name(what: str, dtype: torch.dtype, nhwc: bool) -> str:
    return f"{what}, {str(dtype).removeprefix('torch.')}, {'NHWC' if nhwc else 'NCHW'}"


STRIDES = ("x_strides", "out_strides", "weight_o")
GRAD_STRIDES = ("x_strides", "grad_strides")
SUMS = RANGES * (CITY[1] + 1) * CITY[2] * 4  # bytes of the partial sums, written and read


def _skinny(dtype: torch.dtype) -> list[Specimen]:
    line = 128 // BYTES[dtype]
    loads_x = {"a = tl.load(x_at, mask=exists, other=0)": 128, "b = tl.load(w_at, mask=wanted, other=0)": 128}
    forward = [
        Specimen(
            name=_name("forward, 512→19", dtype, nhwc),
            launch=partial(_forward, CITY, dtype, nhwc),
            kernel="_conv1x1_fwd_kernel",
            trips=(512 // line,),
            case=_case(CITY, dtype),
            claims=Claims(loads=loads_x, tensor_cores=True, wide=STRIDES),
        )
        for nhwc in (False, True)
    ]
    return [
        *forward,
        Specimen(
            name=_name("gradient of x, 512→19", dtype, False),
            launch=partial(_grad_x, CITY, dtype, False),
            kernel="_conv1x1_grad_x_skinny_kernel",
            trips=(512 // 64,),
            case=_case(CITY, dtype),
            claims=Claims(loads={"grad = tl.load(grad_at": 128}, tensor_cores=True, wide=GRAD_STRIDES),
        ),
        Specimen(
            name=_name("gradients of weight and bias, 512→19", dtype, False),
            launch=partial(_grad_weight, CITY, dtype, False),
            kernel="_conv1x1_grad_weight_kernel",
            trips=(2048 // line,),
            case=_case(CITY, dtype, SUMS),
            claims=Claims(
                loads={"x_tile = tl.load(x_at": 128, "grad = tl.load(grad_at": 128},
                tensor_cores=True,
                wide=(*GRAD_STRIDES, "span", "row"),
            ),
        ),
    ]


def _wide_layer(nhwc: bool) -> list[Specimen]:
    dtype = torch.bfloat16
    what: dict[str, Any] = {
        "case": _case(FC7, dtype),
        "trips": (4096 // 64,),
        "offered": (90, 100),
    }
    both = {"grad = tl.load(grad_at": 128, "out = tl.load(out_at": 128}
    forward, grad_x, grad_weight = (
        partial(launch, FC7, dtype, nhwc) for launch in (_forward, _grad_x, _grad_weight)
    )
    return [
        Specimen(
            name=_name("forward, 4096→4096, ReLU, dropout, 128×256 tiles", dtype, nhwc),
            launch=partial(
                _in_configuration, "_conv1x1_forward", {"BLOCK_P": 128, "BLOCK_O": 256}, 4, forward
            ),
            kernel="_conv1x1_fwd_kernel",
            claims=Claims(loads={"a = tl.load(x_at, mask=exists, other=0)": 128}, tensor_cores=True),
            archs=(90,),
            **what,
        ),
        Specimen(
            name=_name("gradient of x, 4096→4096, ReLU, 128×256 tiles", dtype, nhwc),
            launch=partial(_in_configuration, "_conv1x1_grad_x", {"BLOCK_P": 128, "BLOCK_C": 256}, 3, grad_x),
            kernel="_conv1x1_grad_x_kernel",
            claims=Claims(loads=both, tensor_cores=True),
            archs=(90,),
            **what,
        ),
        Specimen(
            name=_name("gradients of weight and bias, 4096→4096, ReLU, 128×256 tiles", dtype, nhwc),
            launch=partial(
                _in_configuration, "_conv1x1_grad_weight", {"BLOCK_O": 128, "BLOCK_C": 256}, 3, grad_weight
            ),
            kernel="_conv1x1_grad_weight_kernel",
            claims=Claims(loads=both, tensor_cores=True),
            archs=(90,),
            **what,
        ),
    ]


SPECIMENS = [
    *_skinny(torch.bfloat16),
    *_skinny(torch.float32),
    *_wide_layer(False),
    *_wide_layer(True),
    Specimen(
        name="sum of partial gradients, 512→19",
        launch=partial(_grad_weight, CITY, torch.bfloat16, False),
        kernel="_conv1x1_sum_kernel",
        trips=(RANGES // 32,),
        case=Case("128×(512 + 1)×19", unit="partial sum", units=SUMS / 4, bytes=SUMS),
        claims=Claims(loads={"tl.load(at": 64}, wide=("row",)),
    ),
]
