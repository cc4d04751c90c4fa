"""`upsample_add` with Triton kernels, and its transposed convolution alone, band by band."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fcnkern.backends.triton import _upsample_add_backward as backward
from fcnkern.backends.triton._launch import Tuned, index_type, on_device, size_class
from fcnkern.backends.triton._math import precision
from fcnkern.backends.triton._upsample_add_dense import _upsample_dense_fwd_kernel
from fcnkern.backends.triton._upsample_add_gather import (
    _upsample_bilinear_fwd_kernel,
    _upsample_depthwise_fwd_kernel,
    _upsample_gather_fwd_kernel,
)
from fcnkern.backends.triton._upsample_add_shapes import (
    Deconv,
    has_channels_last,
    power_of_2,
    strides,
    whole,
)
from fcnkern.ops._checks import dense_format
from fcnkern.resample import Pair

_KEY = ("size_class", "KH", "SY", "CO", "features")

# P pixels a program. Loads are not pipelined: a thread has 32 of them in flight, and pointers for more stages cost
# the registers that let two to three programs share a multiprocessor.
_DENSE_SCORED = Tuned(
    _upsample_dense_fwd_kernel,
    [
        triton.Config({"P": 128}, num_warps=4, num_stages=1),
        triton.Config({"P": 256}, num_warps=8, num_stages=1),  # half the loads of weights per pixel
        triton.Config({"P": 64}, num_warps=4, num_stages=1),  # few pixels: more programs
        triton.Config({"P": 128}, num_warps=4, num_stages=3),  # 16-bit channels_last: copies to shared memory
    ],
    _KEY,
)
# With no features a program's work is the taps: more cells per load of their weights.
_DENSE_PLAIN = Tuned(
    _upsample_dense_fwd_kernel,
    [
        triton.Config({"P": 256}, num_warps=4, num_stages=1),
        triton.Config({"P": 512}, num_warps=8, num_stages=1),  # large strides: weights serve 64 cells
        triton.Config({"P": 128}, num_warps=4, num_stages=1),  # few pixels: more programs
    ],
    _KEY,
)
_GATHER = Tuned(
    _upsample_gather_fwd_kernel,
    [
        triton.Config({"P": 128}, num_warps=4, num_stages=1),
        triton.Config({"P": 64}, num_warps=4, num_stages=1),  # few pixels: more programs
    ],
    _KEY,
)
_BAND = {"bilinear": 4, "depthwise": 16}
"""Source rows that a program of the walking kernels goes down.

Each begins with one more row of loads, and for depthwise weights with those of its weights.
"""


class _Skip(NamedTuple):
    """The skip as the kernels take it; scores where ``weight`` is None; ``bias`` is dense."""

    tensor: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    scale: float = 1.0
    offset: Pair = (0, 0)

    @property
    def features(self) -> int:
        return 0 if self.tensor is None or self.weight is None else self.tensor.shape[1]


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
    """Upsampled ``x`` plus the cropped skip, in one launch; of features only the crop is read."""
    deconv = whole(x, weight, stride)
    bias = None if skip_bias is None else skip_bias.contiguous()
    return _forward(deconv, _Skip(skip, skip_weight, bias, skip_scale, skip_offset))


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
    with on_device(x):
        grads = backward.deconv(whole(x, weight, stride), grad, needs[:2])
        if skip is None:
            return *grads, None, None, None
        if skip_weight is None:
            return (
                *grads,
                backward.scores(grad, skip, skip_offset, skip_scale) if needs[2] else None,
                None,
                None,
            )
        return *grads, *backward.features(grad, skip, skip_weight, skip_offset, skip_scale, needs[2:])


def deconv_rows_fwd(x: Tensor, weight: Tensor | None, stride: Pair, rows: Pair, cols: Pair) -> Tensor:
    """Output[:, :, rows, cols] of the transposed convolution of ``x`` without padding, alone.

    Bands of rows put together are bit for bit the whole output in the same configuration (always the default one
    with deterministic algorithms). A band reads only the source rows (rows[0] - kh) // sy + 1 to
    (rows[1] - 1) // sy, so ``x`` may be a slice of rows [i0, i1) that holds them, with both bounds of ``rows`` less
    i0 * sy.

    Args:
        x: N×Cin×h×w. weight: as for upsample_add. stride: (sy, sx).
        rows: first row and end, inside the full output. cols: the same for columns.
    """
    return _forward(Deconv(x, weight, stride, rows, cols), _Skip())


def deconv_rows_bwd(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    stride: Pair,
    rows: Pair,
    cols: Pair,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None]:
    """What the gradient of output[:, :, rows, cols] contributes to those of ``x`` and ``weight``.

    Both have the shape and type of their tensor; sum them over the bands. ``x`` may be a slice of rows, as for
    `deconv_rows_fwd`; its gradient is then that of the slice.
    """
    with on_device(x):
        return backward.deconv(Deconv(x, weight, stride, rows, cols), grad, needs)


def _forward(deconv: Deconv, skip: _Skip) -> Tensor:
    x = deconv.x
    shape = (len(x), deconv.outputs, *deconv.size)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=dense_format(x))
    if out.numel() == 0:
        return out
    with on_device(x):
        if deconv.is_dense:
            _dense(deconv, skip, out)
        elif skip.features or any(k > 2 * s for k, s in zip(deconv.kernel, deconv.stride, strict=True)):
            _gather(deconv, skip, out)
        else:
            _walk(deconv, skip, out)
    return out


def _tensors(deconv: Deconv, skip: _Skip, out: Tensor) -> tuple[Any, ...]:
    given = (deconv.x, deconv.weight, out, skip.tensor, skip.weight)
    return (*(part for tensor in given for part in (tensor, strides(tensor))), skip.bias, skip.scale)


def _skip_block(skip: _Skip) -> dict[str, Any]:
    """How many features a step of the scoring takes, and whether that divides them."""
    block = power_of_2(skip.features, 16, 32)
    return {"K": block, "EVEN": skip.features % block == 0}


def _dense(deconv: Deconv, skip: _Skip, out: Tensor) -> None:
    x, weight = deconv.x, deconv.weight
    assert weight is not None
    n, inputs = x.shape[:2]
    sy, sx = deconv.stride
    ci, co = power_of_2(inputs, 16, 32), power_of_2(deconv.outputs, 16, 64)
    px = power_of_2(sx, 1, min(8, 256 // co))
    cells = deconv.cells[0] * deconv.cells[1]
    programs = triton.cdiv(deconv.outputs, co) * triton.cdiv(sx, px) * sy * n
    spans = [ci * x.stride(1), ci * weight.stride(0)]
    if skip.tensor is not None and skip.weight is not None:
        spans += [32 * skip.tensor.stride(1), 32 * skip.weight.stride(1)]
    meta = {
        **deconv.constants,
        **_skip_block(skip),
        "CI": ci,
        "CO": co,
        "PX": px,
        "INDEX": index_type(*spans),
        "PRECISION": precision(x),
        "size_class": _size_class(deconv, skip, out),
    }
    kernel = _DENSE_SCORED if skip.features else _DENSE_PLAIN
    kernel.launch(
        lambda config: (programs * triton.cdiv(cells * px, config["P"]),),
        _key(deconv, skip, meta),
        *_tensors(deconv, skip, out),
        inputs,
        deconv.outputs,
        skip.features,
        *deconv.place,
        *skip.offset,
        **meta,
    )


def _gather(deconv: Deconv, skip: _Skip, out: Tensor) -> None:
    n, channels = deconv.x.shape[:2]
    co = power_of_2(channels, 16, 64)
    spans = [0]
    if skip.tensor is not None and skip.weight is not None:
        spans = [32 * skip.tensor.stride(1), 32 * skip.weight.stride(1)]
    meta = {
        **deconv.constants,
        **_skip_block(skip),
        "CO": co,
        "INDEX": index_type(*spans),
        "PRECISION": precision(deconv.x),
        "size_class": _size_class(deconv, skip, out),
    }
    programs, pixels = triton.cdiv(channels, co) * n, deconv.size[0] * deconv.size[1]
    _GATHER.launch(
        lambda config: (programs * triton.cdiv(pixels, config["P"]),),
        _key(deconv, skip, meta),
        *_tensors(deconv, skip, out),
        channels,
        skip.features,
        *deconv.place,
        *skip.offset,
        **meta,
    )


def _size_class(deconv: Deconv, skip: _Skip, out: Tensor) -> int:
    tensors = (deconv.x, out) if skip.tensor is None else (deconv.x, out, skip.tensor)
    n, _, rows, cols = out.shape
    return size_class(n * rows * cols, *(tensor.stride() for tensor in tensors))


def _key(deconv: Deconv, skip: _Skip, meta: dict[str, Any]) -> tuple[Any, ...]:
    given = (deconv.x.dtype, deconv.x.device, deconv.kernel, deconv.stride, skip.features)
    return *given, meta["CO"], meta["size_class"]


def _walk(deconv: Deconv, skip: _Skip, out: Tensor) -> None:
    x, weight = deconv.x, deconv.weight
    n, channels = x.shape[:2]
    band = _BAND["bilinear" if weight is None else "depthwise"]
    if has_channels_last(out):
        co = power_of_2(channels, 1, 32)
        p = power_of_2(deconv.size[1], 1, 1024 // co)
    else:
        p = power_of_2(deconv.size[1], 32, 128)
        co = power_of_2(channels, 1, 1024 // p)
    programs = (
        n * triton.cdiv(channels, co) * triton.cdiv(deconv.size[1], p) * triton.cdiv(deconv.cells[0], band)
    )
    skip_tensors = (skip.tensor, strides(skip.tensor), skip.scale)
    rest = (out, strides(out), *skip_tensors, channels, *deconv.place, *skip.offset)
    tile = {"BAND": band, "CO": co, "P": p, "num_warps": 4}
    if weight is None:
        sy, sx = deconv.stride
        _upsample_bilinear_fwd_kernel[(programs,)](x, strides(x), *rest, SY=sy, SX=sx, **tile)
        return
    grid = (programs * deconv.stride[0],)
    given = (x, strides(x), weight, strides(weight))
    _upsample_depthwise_fwd_kernel[grid](*given, *rest, **deconv.constants, **tile)
