"""The forward of conv1x1: a GEMM of pixels × channels by channels × outputs with everything else in its epilogue."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fcnkern.backends.triton._conv1x1_pixels import (
    Pixels,
    channel_offsets,
    pixel_mask,
    pixel_offsets,
    pixel_places,
    tile_addresses,
)
from fcnkern.backends.triton._dropout import dropout_arguments, kept_elements
from fcnkern.backends.triton._launch import Tuned
from fcnkern.backends.triton._math import dot

SKINNY = 64
"""Most outputs that one tile holds, so that features are read once."""


@triton.jit
def grouped_tile(P_TILES, O_TILES, GROUP: tl.constexpr):
    """(pixel tile, output tile) of this program: GROUP pixel tiles take every output tile before the next do.

    Programs that run together then share both their features and their weights in L2.
    """
    pid = tl.program_id(0)
    first = pid // (GROUP * O_TILES) * GROUP
    group = tl.minimum(P_TILES - first, GROUP)
    inside = pid % (GROUP * O_TILES)
    return first + inside % group, inside // group


@triton.jit
def _halves(tile):
    """The left and the right half of the columns of a tile."""
    ROWS: tl.constexpr = tile.shape[0]
    COLUMNS: tl.constexpr = tile.shape[1]
    return tl.split(tl.permute(tl.reshape(tile, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit(do_not_specialize=["size_class", "last_dropped"])
def _conv1x1_fwd_kernel(
    x, weight, bias, seed, out, count, plane, width, C_in, C_out,
    x_strides, weight_o, weight_c, bias_o, out_strides, scale, last_dropped, keep_scale, size_class,
    GEOMETRY: tl.constexpr, ALIGN: tl.constexpr, WHOLE_C: tl.constexpr, RELU: tl.constexpr, DROPOUT: tl.constexpr,
    IN_FOURS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Reads x once for each BLOCK_O outputs and the weights once for each BLOCK_P pixels; writes ``out`` once.

    2 C_in C_out flops a pixel, no exponentials. Bound by DRAM, C_in + C_out elements a pixel, where one tile has all
    outputs (C_out <= 64); by the tensor cores where not. Dropout adds ten Philox rounds for each four outputs, or
    for each one where H·W is no multiple of 4.
    """
    tile_p, tile_o = grouped_tile(tl.cdiv(count, BLOCK_P), tl.cdiv(C_out, BLOCK_O), GROUP)
    start = tile_p.to(tl.int64) * BLOCK_P
    places = pixel_places(start, plane, width, BLOCK_P, GEOMETRY)
    exists = pixel_mask(start, count, BLOCK_P, ALIGN)[:, None]
    outputs = tile_o * BLOCK_O + tl.arange(0, BLOCK_O)
    channels = tl.arange(0, BLOCK_C)

    x_at = tile_addresses(x, x_strides, places, channels, GEOMETRY, ALIGN)
    w_at = weight + channels.to(tl.int64)[:, None] * weight_c + outputs.to(tl.int64)[None, :] * weight_o
    wanted = (outputs < C_out)[None, :]
    acc = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
    for c in range(0, C_in, BLOCK_C):
        if WHOLE_C:
            a = tl.load(x_at, mask=exists, other=0)
            b = tl.load(w_at, mask=wanted, other=0)
        else:
            a = tl.load(x_at, mask=exists & (channels < C_in - c)[None, :], other=0)
            b = tl.load(w_at, mask=wanted & (channels < C_in - c)[:, None], other=0)
        acc = dot(a, b, acc, PRECISION)
        x_at += tl.full((), BLOCK_C, tl.int64) * x_strides[1]
        w_at += tl.full((), BLOCK_C, tl.int64) * weight_c

    out_at = out + pixel_offsets(places, out_strides, GEOMETRY, ALIGN)[:, None]
    parts = (acc,)
    if DROPOUT and BLOCK_O >= 128:  # fewer Philox states in registers at a time
        left, right = _halves(acc)
        parts = _halves(left) + _halves(right)
    PART: tl.constexpr = BLOCK_O // len(parts)
    for part in tl.static_range(len(parts)):
        outputs = tile_o * BLOCK_O + part * PART + tl.arange(0, PART)
        y = parts[part] * scale
        if bias is not None:
            at = bias + outputs.to(tl.int64) * bias_o
            y += tl.load(at, mask=outputs < C_out, other=0).to(tl.float32)[None, :]
        if RELU:
            y = tl.where(y < 0, 0.0, y)  # keeps NaN
        if DROPOUT:
            kept = kept_elements(seed, last_dropped, start, outputs, plane, C_out, BLOCK_P, IN_FOURS)
            y = tl.where(kept, y * keep_scale, 0.0)
        at = out_at + channel_offsets(outputs, out_strides, ALIGN)[None, :]
        tl.store(at, y.to(out.dtype.element_ty), mask=exists & (outputs < C_out)[None, :])


KEY = ["size_class", "C_in", "C_out", "GEOMETRY", "RELU", "DROPOUT"]

# Skinny: one tile has all outputs. Per 128 bytes of channels a stage holds BLOCK_P rows of features; what is in
# flight on an SM must cover latency × bandwidth, about 32 KB.
_SKINNY = Tuned(
    _conv1x1_fwd_kernel,
    [
        triton.Config({"BLOCK_P": 128}, num_warps=4, num_stages=4),  # 64 to 96 KB: fits everywhere
        triton.Config({"BLOCK_P": 256}, num_warps=8, num_stages=3),  # halves the weights read from L2
        triton.Config({"BLOCK_P": 64}, num_warps=4, num_stages=5),  # fewer pixels than SMs × 128
        triton.Config({"BLOCK_P": 32}, num_warps=2, num_stages=6),  # a single small image with many channels
    ],
    KEY,
)
_WIDE = Tuned(
    _conv1x1_fwd_kernel,
    [
        triton.Config({"BLOCK_P": 128, "BLOCK_O": 128}, num_warps=8, num_stages=3),  # 96 KB: fits everywhere
        triton.Config({"BLOCK_P": 128, "BLOCK_O": 256}, num_warps=8, num_stages=4),  # fewest loads: 192 KB
        triton.Config({"BLOCK_P": 128, "BLOCK_O": 128}, num_warps=4, num_stages=3),  # two a SM
        triton.Config({"BLOCK_P": 64, "BLOCK_O": 128}, num_warps=4, num_stages=4),  # fewer tiles than SMs
        triton.Config({"BLOCK_P": 128, "BLOCK_O": 64}, num_warps=4, num_stages=4),  # outputs just above 64
    ],
    KEY,
    spilling={1: (8,)},
)
GROUP = 8
"""Pixel tiles that take every output tile before the next tiles do: 1024 pixels of features stay in L2."""


def score(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    scale: float = 1.0,
    relu: bool = False,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> None:
    """Writes Dropout(ReLU(scale · weight x + bias)) to ``out``, on the current device.

    All tensors may have any strides; ``weight`` is O×C×1×1.
    """
    if out.numel() == 0:
        return
    pixels = Pixels.of(x, out)
    outputs, channels = weight.shape[:2]
    dropout, last_dropped, keep_scale = dropout_arguments(dropout_p, seed)
    skinny = outputs <= SKINNY
    block_c = 128 // x.element_size()
    meta = pixels.constants(x) | {
        "WHOLE_C": channels % block_c == 0,
        "RELU": relu,
        "DROPOUT": dropout,
        "BLOCK_C": block_c,
        "GROUP": GROUP,
    }
    if skinny:
        meta["BLOCK_O"] = padded(outputs)
    key = (pixels.size_class, channels, outputs, x.dtype, x.device, *meta.values())
    (_SKINNY if skinny else _WIDE).launch(
        lambda tile: (triton.cdiv(pixels.size, tile["BLOCK_P"]) * triton.cdiv(outputs, tile["BLOCK_O"]),),
        key,
        x, weight, bias, seed if dropout else None, out, *pixels.sizes, channels, outputs,
        pixels.strides[0], *weight.stride()[:2], 0 if bias is None else bias.stride(0), pixels.strides[1],
        scale, last_dropped, keep_scale, pixels.size_class, **meta,
    )  # fmt: skip


def padded(outputs: int) -> int:
    """The tile that holds up to 64 outputs: 16, 32 or 64."""
    return max(16, triton.next_power_of_2(outputs))
