"""Launches of the backward kernels of `upsample_add`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from fcnkern.backends.triton._launch import generation, index_type
from fcnkern.backends.triton._math import precision
from fcnkern.backends.triton._upsample_add_dense_bwd import (
    _upsample_dense_grad_weight_kernel,
    _upsample_dense_grad_x_kernel,
)
from fcnkern.backends.triton._upsample_add_gather_bwd import (
    _sum_partials_kernel,
    _upsample_depthwise_grad_weight_kernel,
    _upsample_gather_grad_x_kernel,
)
from fcnkern.backends.triton._upsample_add_shapes import (
    Deconv,
    has_channels_last,
    power_of_2,
    split,
    strides,
)
from fcnkern.backends.triton._upsample_add_skip_bwd import (
    _upsample_add_features_bwd_kernel,
    _upsample_add_scores_bwd_kernel,
)
from fcnkern.ops._checks import dense_format
from fcnkern.resample import Pair

_LEAST_TILES = 4
"""Tiles that a part of a split sum has at least: fewer would cost more in partial results than they save."""


def deconv(deconv: Deconv, grad: Tensor, needs: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """What the gradient of the window contributes to those of x and of weight."""
    x, weight = deconv.x, deconv.weight
    grad_x = torch.empty_like(x, memory_format=dense_format(x)) if needs[0] else None
    grad_weight = None
    if needs[1] and weight is not None:
        grad_weight = torch.empty_like(weight, memory_format=dense_format(weight))
    if grad.numel() == 0:
        return _zeroed(grad_x), _zeroed(grad_weight)
    if grad_x is not None:
        (_dense_grad_x if deconv.is_dense else _gather_grad_x)(deconv, grad, grad_x)
    if grad_weight is not None:
        (_dense_grad_weight if deconv.is_dense else _depthwise_grad_weight)(deconv, grad, grad_weight)
    return grad_x, grad_weight


def _zeroed(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.zero_()


def scores(grad: Tensor, skip: Tensor, offset: Pair, scale: float) -> Tensor:
    """The gradient of cropped scores."""
    result = torch.empty_like(skip, memory_format=dense_format(skip))
    n, channels, height, width = skip.shape
    if skip.numel() == 0:
        return result
    co, p = _image_tile(result, 1024)
    grid = (n * triton.cdiv(channels, co) * triton.cdiv(height * width, p),)
    window = (height, width, *offset, *grad.shape[2:])
    tensors = (grad, strides(grad), result, strides(result))
    _upsample_add_scores_bwd_kernel[grid](*tensors, scale, channels, *window, CO=co, P=p)
    return result


def features(
    grad: Tensor, skip: Tensor, weight: Tensor, offset: Pair, scale: float, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of features that were scored on a crop, of the weights and of the bias."""
    result = torch.empty_like(skip, memory_format=dense_format(skip)) if needs[0] else None
    grad_weight = weight.new_empty(weight.shape) if needs[1] else None
    grad_bias = weight.new_empty(len(weight)) if needs[2] else None
    if grad.numel() == 0:
        return _zeroed(result), _zeroed(grad_weight), _zeroed(grad_bias)
    co = power_of_2(grad.shape[1], 16, 64)
    if grad.shape[1] <= co:  # one tile of outputs: features and gradient are read once for everything
        _features(grad, skip, weight, offset, scale, co, result, grad_weight, grad_bias)
    else:
        if result is not None:
            _features(grad, skip, weight, offset, scale, co, result, None, None)
        if grad_weight is not None or grad_bias is not None:
            _features(grad, skip, weight, offset, scale, co, None, grad_weight, grad_bias)
    return result, grad_weight, grad_bias


def _features(
    grad: Tensor,
    skip: Tensor,
    weight: Tensor,
    offset: Pair,
    scale: float,
    co: int,
    result: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
) -> None:
    (n, outputs, rows, cols), (height, width) = grad.shape, skip.shape[2:]
    if result is None:  # nothing is written outside the window
        skip = skip[:, :, offset[0] : offset[0] + rows, offset[1] : offset[1] + cols]
        (height, width), offset = (rows, cols), (0, 0)
    channels = skip.shape[1]
    groups = 1 if result is not None else triton.cdiv(outputs, co)
    # Larger tiles would spill registers, with some Triton: the parts of fp32 products take twice as many.
    fp32 = grad.dtype == torch.float32
    most = 64 if fp32 or generation() in (8, 12) else 128
    cs, p = power_of_2(channels, 16, most), 16 if fp32 else 32
    programs = triton.cdiv(channels, cs) * groups
    tiles = n * triton.cdiv(height * width, p)
    parts = split(programs, triton.cdiv(tiles, _LEAST_TILES))
    weight_parts = None if grad_weight is None else _parts(grad_weight, parts)
    bias_parts = None if grad_bias is None else _parts(grad_bias, parts)
    spans = [co * grad.stride(1), cs * skip.stride(1), 0 if result is None else cs * result.stride(1)]
    tensors = (grad, skip, weight, result)
    _upsample_add_features_bwd_kernel[(programs * parts,)](
        *(part for tensor in tensors for part in (tensor, strides(tensor))),
        weight_parts,
        bias_parts,
        scale,
        *(n, outputs, channels, height, width, *offset, rows, cols, parts),
        CO=co,
        CS=cs,
        P=p,
        INDEX=index_type(*spans),
        PRECISION=precision(grad),
        num_warps=8 if cs == 128 else 4,
        num_stages=1,
    )
    for partial, total in ((weight_parts, grad_weight), (bias_parts, grad_bias)):
        if partial is not None and total is not None:
            _sum(partial, total)


def _dense_grad_x(deconv: Deconv, grad: Tensor, result: Tensor) -> None:
    x, weight, (kh, _) = deconv.x, deconv.weight, deconv.kernel
    assert weight is not None
    n, inputs, h, w = x.shape
    tile = _dense_tile(deconv, grad, 32)
    programs = triton.cdiv(inputs, tile["CI"]) * triton.cdiv(h * w, 64) * n

    def launch(target: Tensor, target_strides: tuple[int, ...], parts: int) -> None:
        _upsample_dense_grad_x_kernel[(programs * parts,)](
            *(grad, strides(grad), weight, strides(weight), target, target_strides),
            *(inputs, deconv.outputs, *deconv.place, parts),
            **deconv.constants,
            **tile,
            J=64,
        )

    _in_parts(result, split(programs, kh), launch)


def _dense_grad_weight(deconv: Deconv, grad: Tensor, result: Tensor) -> None:
    x, (kh, kw) = deconv.x, deconv.kernel
    n, inputs, h, w = x.shape
    tile = _dense_tile(deconv, grad, 64)
    j = power_of_2(h * w, 16, 32)
    programs = kh * triton.cdiv(kw, tile["KX"])
    programs *= triton.cdiv(deconv.outputs, tile["CO"]) * triton.cdiv(inputs, tile["CI"])

    def launch(target: Tensor, target_strides: tuple[int, ...], parts: int) -> None:
        _upsample_dense_grad_weight_kernel[(programs * parts,)](
            *(grad, strides(grad), x, strides(x), target, target_strides),
            *(n, inputs, deconv.outputs, *deconv.place, parts),
            **deconv.constants,
            **tile,
            J=j,
        )

    _in_parts(result, split(programs, triton.cdiv(n * triton.cdiv(h * w, j), _LEAST_TILES)), launch)


def _dense_tile(deconv: Deconv, grad: Tensor, width: int) -> dict[str, Any]:
    """Inputs, and outputs times columns of the kernel (``width`` together), that a dense backward takes at once."""
    last = has_channels_last(grad)
    if last:
        co = power_of_2(deconv.outputs, 16, width)
        kx = width // co
    else:
        kx = power_of_2(deconv.kernel[1], 1, width)
        co = width // kx
    assert deconv.weight is not None
    spans = [co * t.stride(1) + kx * t.stride(3) for t in (grad, deconv.weight)]
    spans.append(32 * deconv.x.stride(1))
    return {
        "CI": power_of_2(deconv.x.shape[1], 16, 32),
        "CO": co,
        "KX": kx,
        "LAST": last,
        "WHOLE": deconv.is_whole,
        "INDEX": index_type(*spans),
        "PRECISION": precision(grad),
        "num_warps": 4,
        "num_stages": 1,
    }


def _gather_grad_x(deconv: Deconv, grad: Tensor, result: Tensor) -> None:
    n, channels, h, w = deconv.x.shape
    co, j, kx = _gather_tile(deconv, grad)
    grid = (n * triton.cdiv(channels, co) * triton.cdiv(h * w, j),)
    _upsample_gather_grad_x_kernel[grid](
        *(grad, strides(grad), deconv.weight, strides(deconv.weight), result, strides(result)),
        *(channels, *deconv.place),
        **deconv.constants,
        CO=co,
        J=j,
        KX=kx,
        WHOLE=deconv.is_whole,
        num_warps=4,
    )


def _depthwise_grad_weight(deconv: Deconv, grad: Tensor, result: Tensor) -> None:
    x, (kh, kw) = deconv.x, deconv.kernel
    n, channels, h, w = x.shape
    co, j, kx = _gather_tile(deconv, grad)
    ky = power_of_2(kh, 1, 4)
    programs = triton.cdiv(channels, co) * triton.cdiv(kh, ky) * triton.cdiv(kw, kx)

    def launch(target: Tensor, target_strides: tuple[int, ...], parts: int) -> None:
        _upsample_depthwise_grad_weight_kernel[(programs * parts,)](
            *(grad, strides(grad), x, strides(x), target, target_strides),
            *(n, channels, *deconv.place, parts),
            **deconv.constants,
            CO=co,
            J=j,
            KX=kx,
            KY=ky,
            WHOLE=deconv.is_whole,
            num_warps=4,
        )

    _in_parts(result, split(programs, triton.cdiv(n * triton.cdiv(h * w, j), _LEAST_TILES)), launch)


def _gather_tile(deconv: Deconv, grad: Tensor) -> tuple[int, int, int]:
    """Channels, points and columns of the kernel of a program: 1024 sums, the longest side along memory."""
    if has_channels_last(grad):
        co = power_of_2(deconv.x.shape[1], 1, 32)
        return co, 1024 // co, 1
    kx = power_of_2(deconv.kernel[1], 1, 32)
    j = power_of_2(deconv.x.shape[2] * deconv.x.shape[3], 1, 1024 // kx)
    return 1024 // (kx * j), j, kx


def _image_tile(image: Tensor, size: int) -> tuple[int, int]:
    """Channels and pixels of a tile of ``size`` elements, the longest side along memory."""
    if has_channels_last(image):
        co = power_of_2(image.shape[1], 1, size)
        return co, size // co
    p = power_of_2(image.shape[2] * image.shape[3], 1, size)
    return size // p, p


def _in_parts(result: Tensor, parts: int, launch: Callable[[Tensor, tuple[int, ...], int], None]) -> None:
    """Launches a kernel that writes ``result``, or else ``parts`` terms of it that are then summed in order."""
    if parts == 1:
        launch(result, (0, *result.stride()), 1)
        return
    partial = _parts(result, parts)
    launch(partial, (result.numel(), *result.stride()), parts)
    _sum(partial, result)


def _parts(result: Tensor, parts: int) -> Tensor:
    """fp32 terms of a dense tensor, each in its layout."""
    return result.new_empty((parts, result.numel()), dtype=torch.float32)


def _sum(partial: Tensor, result: Tensor) -> None:
    parts, count = partial.shape
    _sum_partials_kernel[(triton.cdiv(count, 256),)](partial, result, count, parts, BLOCK=256, num_warps=4)
