"""The gradients of conv1x1 for its weight and bias: sums over pixels, in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcnkern.backends._conv1x1_ranges import pixel_ranges
from fcnkern.backends.triton._conv1x1_forward import KEY, SKINNY, padded
from fcnkern.backends.triton._conv1x1_grad_x import gradient_tile
from fcnkern.backends.triton._conv1x1_pixels import (
    Pixels,
    channel_offsets,
    pixel_mask,
    pixel_offsets,
    pixel_places,
)
from fcnkern.backends.triton._dropout import dropout_arguments
from fcnkern.backends.triton._launch import Tuned
from fcnkern.backends.triton._math import dot

_PROGRAMS = 264
"""Programs wanted, two for each SM of the largest GPUs: a constant, so that every GPU sums in the same order."""


@triton.jit
def _sums_of(rows, columns, TRANSPOSED: tl.constexpr):
    return columns[:, None] + rows[None, :] if TRANSPOSED else rows[:, None] + columns[None, :]


@triton.jit
def _both(rows, columns, TRANSPOSED: tl.constexpr):
    return columns[:, None] & rows[None, :] if TRANSPOSED else rows[:, None] & columns[None, :]


@triton.jit(do_not_specialize=["size_class", "last_dropped"])
def _conv1x1_grad_weight_kernel(
    grad, out, x, seed, weight_sums, bias_sums, count, plane, width, C_in, C_out,
    grad_strides, out_strides, x_strides, span, row, weight_scale, bias_scale, last_dropped, size_class,
    GEOMETRY: tl.constexpr, ALIGN: tl.constexpr, RELU: tl.constexpr, DROPOUT: tl.constexpr, IN_FOURS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
    SKINNY: tl.constexpr,
):  # fmt: skip
    """Sums over ``span`` pixels: outputs × pixels by pixels × channels, and the gradient alone for the bias.

    Range r writes row r, ``row`` elements apart, of C_out · C_in and of C_out sums; either may be absent. Reads x
    once for each BLOCK_O outputs and the gradient (with ReLU, the output too) once for each BLOCK_C channels.
    2 C_in C_out flops a pixel, no exponentials; bound by DRAM for C_out <= 64, by the tensor cores for more.

    A skinny layer takes the transposed product: the tensor cores' largest instructions want 64 rows at least.
    """
    tiles_c = tl.cdiv(C_in, BLOCK_C)
    tile_c, tile_o = tl.program_id(0) % tiles_c, tl.program_id(0) // tiles_c
    first = tl.program_id(1).to(tl.int64) * span
    outputs = tile_o * BLOCK_O + tl.arange(0, BLOCK_O)
    channels = tile_c * BLOCK_C + tl.arange(0, BLOCK_C)
    wanted, inside = outputs < C_out, channels < C_in
    grad_outputs = channel_offsets(outputs, grad_strides, ALIGN)
    x_channels = channel_offsets(channels, x_strides, ALIGN)
    acc = tl.zeros((BLOCK_C, BLOCK_O) if SKINNY else (BLOCK_O, BLOCK_C), tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_O) if SKINNY else (BLOCK_O, 16), tl.float32)
    ones = tl.full((BLOCK_P, 16), 1.0, tl.float32).to(grad.dtype.element_ty)
    for step in range(0, tl.minimum(count - first, span).to(tl.int32), BLOCK_P):
        start = first + step
        places = pixel_places(start, plane, width, BLOCK_P, GEOMETRY)
        exists = pixel_mask(start, count, BLOCK_P, ALIGN)
        out_at = out
        if RELU:
            out_pixels = pixel_offsets(places, out_strides, GEOMETRY, ALIGN)
            out_at = out + _sums_of(channel_offsets(outputs, out_strides, ALIGN), out_pixels, SKINNY)
        grad_pixels = pixel_offsets(places, grad_strides, GEOMETRY, ALIGN)
        g = gradient_tile(
            grad + _sums_of(grad_outputs, grad_pixels, SKINNY), out_at, _both(wanted, exists, SKINNY),
            seed, last_dropped, start, outputs, plane, C_out,
            BLOCK_P, RELU, DROPOUT, IN_FOURS, OUTPUTS_FIRST=not SKINNY,
        )  # fmt: skip
        if bias_sums is not None:
            total = total + g.to(tl.float32) if SKINNY else dot(g, ones, total, PRECISION)
        if weight_sums is not None:
            x_pixels = pixel_offsets(places, x_strides, GEOMETRY, ALIGN)
            x_at = x + _sums_of(x_pixels, x_channels, SKINNY)
            x_tile = tl.load(x_at, mask=_both(exists, inside, SKINNY), other=0)
            acc = dot(x_tile, g, acc, PRECISION) if SKINNY else dot(g, x_tile, acc, PRECISION)

    first_of_row = tl.program_id(1).to(tl.int64) * row
    if weight_sums is not None:
        at = weight_sums + first_of_row + _sums_of(outputs.to(tl.int64) * C_in, channels, SKINNY)
        value = (acc * weight_scale).to(weight_sums.dtype.element_ty)
        tl.store(at, value, mask=_both(wanted, inside, SKINNY))
    if bias_sums is not None:
        summed = tl.sum(total, 0) if SKINNY else tl.sum(total, 1) * (1 / 16)  # of 16 equal columns
        value = (summed * bias_scale).to(bias_sums.dtype.element_ty)
        tl.store(bias_sums + first_of_row + outputs, value, mask=wanted & (tile_c == 0))


@triton.jit
def _conv1x1_sum_kernel(
    sums, grad_weight, grad_bias, rows, weights, biases, row, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Adds the rows of partial sums in a fixed order; the first ``weights`` columns are the weight's.

    Reads each partial sum once; bound by memory, mostly L2, where they were just written. No exponentials.
    """
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, rows, BLOCK_ROWS):
        index = first + tl.arange(0, BLOCK_ROWS)
        at = sums + index.to(tl.int64)[:, None] * row + column[None, :]
        total += tl.sum(tl.load(at, mask=(index < rows)[:, None] & (column < row)[None, :], other=0.0), 0)
    if grad_weight is not None:
        tl.store(grad_weight + column, total.to(grad_weight.dtype.element_ty), mask=column < weights)
    if grad_bias is not None:
        at = grad_bias + (column - weights)
        tl.store(
            at, total.to(grad_bias.dtype.element_ty), mask=(column >= weights) & (column < weights + biases)
        )


_SKINNY = Tuned(
    _conv1x1_grad_weight_kernel,
    [
        triton.Config({"BLOCK_C": 128}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_C": 128}, num_warps=8, num_stages=3),  # half the registers
        triton.Config({"BLOCK_C": 256}, num_warps=8, num_stages=3),  # the gradient is read half as often
        triton.Config({"BLOCK_C": 64}, num_warps=4, num_stages=4),  # more programs
    ],
    KEY,
    spilling={0: (10,), 1: (8,)},
)
_WIDE = Tuned(
    _conv1x1_grad_weight_kernel,
    [
        triton.Config({"BLOCK_O": 128, "BLOCK_C": 128}, num_warps=8, num_stages=2),  # 64 KB: fits everywhere
        triton.Config({"BLOCK_O": 128, "BLOCK_C": 256}, num_warps=8, num_stages=3),  # fewest loads: 192 KB
        triton.Config(
            {"BLOCK_O": 64, "BLOCK_C": 256}, num_warps=4, num_stages=3
        ),  # half the gradient's registers
    ],
    KEY,
    spilling={1: (8,)},
)


def _ranges(count: int, outputs: int, channels: int) -> tuple[int, int]:
    """How many pixels are summed together, and how many such ranges there are."""
    tiles = triton.cdiv(outputs, 128) * triton.cdiv(channels, 256)
    return pixel_ranges(count, outputs, channels, _PROGRAMS // tiles)


def score_grad_weight(
    grad: Tensor,
    x: Tensor,
    out: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    scale: float = 1.0,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> None:
    """Writes the gradients of `score` for weight and bias to dense tensors, on the current device.

    ``out`` is as for `score_grad_x`.
    """
    given = [each for each in (grad_weight, grad_bias) if each is not None]
    if grad.numel() == 0 or not given:
        for each in given:
            each.zero_()
        return
    pixels = Pixels.of(grad, grad if out is None else out, x)
    outputs = grad.shape[1]
    channels = x.shape[1] if grad_weight is not None else 1
    dropout, last_dropped, keep_scale = dropout_arguments(dropout_p, seed)
    span, ranges = _ranges(pixels.size, outputs, x.shape[1])
    weights = 0 if grad_weight is None else outputs * channels
    row = triton.cdiv(weights + (0 if grad_bias is None else outputs), 16) * 16  # aligned for wide accesses
    sums = None if ranges == 1 else torch.empty((ranges, row), dtype=torch.float32, device=grad.device)
    weight_sums = grad_weight if sums is None or grad_weight is None else sums
    bias_sums = grad_bias if sums is None or grad_bias is None else sums[:, weights:]
    skinny = outputs <= SKINNY
    meta = pixels.constants(grad) | {
        "RELU": out is not None,
        "DROPOUT": dropout,
        "BLOCK_P": 128 // grad.element_size(),
        "SKINNY": skinny,
    }
    if skinny:
        meta["BLOCK_O"] = padded(outputs)
    key = (pixels.size_class, channels, outputs, len(given), grad.dtype, grad.device, *meta.values())
    (_SKINNY if skinny else _WIDE).launch(
        lambda tile: (
            triton.cdiv(outputs, tile["BLOCK_O"]) * triton.cdiv(channels, tile["BLOCK_C"]),
            ranges,
        ),
        key,
        grad, out, x, seed if dropout else None, weight_sums, bias_sums, *pixels.sizes, channels, outputs,
        *pixels.strides, span, row, scale * keep_scale, keep_scale, last_dropped, pixels.size_class, **meta,
    )  # fmt: skip
    if sums is not None:
        grid = (triton.cdiv(row, 64),)
        _conv1x1_sum_kernel[grid](
            sums, grad_weight, grad_bias, ranges, weights, outputs, row, BLOCK_ROWS=32, BLOCK=64, num_warps=4
        )  # fmt: skip
