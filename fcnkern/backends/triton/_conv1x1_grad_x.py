"""The gradient of conv1x1 for its features: the transposed product of a gradient with the epilogue undone."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fcnkern.backends.triton._conv1x1_forward import GROUP, KEY, SKINNY, grouped_tile, padded
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


@triton.jit
def gradient_tile(
    grad_at, out_at, mask, seed, last_dropped, start, outputs, plane, C_out,
    BLOCK_P: tl.constexpr, RELU: tl.constexpr, DROPOUT: tl.constexpr, IN_FOURS: tl.constexpr,
    OUTPUTS_FIRST: tl.constexpr,
):  # fmt: skip
    """The gradient before ReLU and dropout of BLOCK_P pixels × ``outputs``, or its transpose, less dropout's factor.

    With ReLU the output tells all: what dropout cleared is 0 there too.
    """
    grad = tl.load(grad_at, mask=mask, other=0)
    if RELU:
        out = tl.load(out_at, mask=mask, other=0)
        grad = tl.where(out.to(tl.float32) <= 0, 0, grad)
    elif DROPOUT:
        kept = kept_elements(seed, last_dropped, start, outputs, plane, C_out, BLOCK_P, IN_FOURS)
        grad = tl.where(tl.trans(kept) if OUTPUTS_FIRST else kept, grad, 0)
    return grad


@triton.jit(do_not_specialize=["size_class", "last_dropped"])
def _conv1x1_grad_x_skinny_kernel(
    grad, out, weight, seed, grad_x, count, plane, width, C_in, C_out,
    grad_strides, out_strides, weight_o, weight_c, x_strides, scale, last_dropped, size_class,
    GEOMETRY: tl.constexpr, ALIGN: tl.constexpr, RELU: tl.constexpr, DROPOUT: tl.constexpr, IN_FOURS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Reads the gradient (and, with ReLU, the output) once for each SPAN channels; writes ``grad_x`` once.

    2 C_in C_out flops a pixel, no exponentials; bound by the C_in elements a pixel that it writes to DRAM.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK_P
    places = pixel_places(start, plane, width, BLOCK_P, GEOMETRY)
    exists = pixel_mask(start, count, BLOCK_P, ALIGN)[:, None]
    outputs = tl.arange(0, BLOCK_O)
    wanted = outputs < C_out
    grad_at = tile_addresses(grad, grad_strides, places, outputs, GEOMETRY, ALIGN)
    out_at = tile_addresses(out, out_strides, places, outputs, GEOMETRY, ALIGN) if RELU else out
    a = gradient_tile(
        grad_at, out_at, exists & wanted[None, :], seed, last_dropped, start, outputs, plane, C_out,
        BLOCK_P, RELU, DROPOUT, IN_FOURS, OUTPUTS_FIRST=False,
    )  # fmt: skip
    begin = tl.program_id(1) * SPAN
    x_at = grad_x + pixel_offsets(places, x_strides, GEOMETRY, ALIGN)[:, None]
    w_at = weight + outputs.to(tl.int64)[:, None] * weight_o
    for c in range(begin, tl.minimum(begin + SPAN, C_in), BLOCK_C):
        channels = c + tl.arange(0, BLOCK_C)
        inside = (channels < C_in)[None, :]
        b = tl.load(w_at + channels.to(tl.int64)[None, :] * weight_c, mask=wanted[:, None] & inside, other=0)
        tile = dot(a, b, tl.zeros((BLOCK_P, BLOCK_C), tl.float32), PRECISION) * scale
        at = x_at + channel_offsets(channels, x_strides, ALIGN)[None, :]
        tl.store(at, tile.to(grad_x.dtype.element_ty), mask=exists & inside)


@triton.jit(do_not_specialize=["size_class", "last_dropped"])
def _conv1x1_grad_x_kernel(
    grad, out, weight, seed, grad_x, count, plane, width, C_in, C_out,
    grad_strides, out_strides, weight_o, weight_c, x_strides, scale, last_dropped, size_class,
    GEOMETRY: tl.constexpr, ALIGN: tl.constexpr, WHOLE_O: tl.constexpr, RELU: tl.constexpr, DROPOUT: tl.constexpr,
    IN_FOURS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """The same for wide layers: pixels × outputs by outputs × channels, bound by the tensor cores; no exponentials.

    The epilogue is undone in registers on the way to the product. Dropout without ReLU forms its mask again for
    each BLOCK_C channels, which then takes longer than the product.
    """
    tile_p, tile_c = grouped_tile(tl.cdiv(count, BLOCK_P), tl.cdiv(C_in, BLOCK_C), GROUP)
    start = tile_p.to(tl.int64) * BLOCK_P
    places = pixel_places(start, plane, width, BLOCK_P, GEOMETRY)
    exists = pixel_mask(start, count, BLOCK_P, ALIGN)[:, None]
    channels = tile_c * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (channels < C_in)[None, :]
    local = tl.arange(0, BLOCK_O)
    grad_at = tile_addresses(grad, grad_strides, places, local, GEOMETRY, ALIGN)
    out_at = tile_addresses(out, out_strides, places, local, GEOMETRY, ALIGN) if RELU else out
    w_at = weight + local.to(tl.int64)[:, None] * weight_o + channels.to(tl.int64)[None, :] * weight_c
    step = tl.full((), BLOCK_O, tl.int64)
    acc = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for o in range(0, C_out, BLOCK_O):
        mask, w_mask = exists, inside
        if not WHOLE_O:
            mask = exists & (local < C_out - o)[None, :]
            w_mask = inside & (local < C_out - o)[:, None]
        a = gradient_tile(
            grad_at, out_at, mask, seed, last_dropped, start, o + local, plane, C_out,
            BLOCK_P, RELU, DROPOUT, IN_FOURS, OUTPUTS_FIRST=False,
        )  # fmt: skip
        acc = dot(a, tl.load(w_at, mask=w_mask, other=0), acc, PRECISION)
        grad_at += step * grad_strides[1]
        if RELU:
            out_at += step * out_strides[1]
        w_at += step * weight_o
    at = tile_addresses(grad_x, x_strides, places, channels, GEOMETRY, ALIGN)
    tl.store(at, (acc * scale).to(grad_x.dtype.element_ty), mask=exists & inside)


_SKINNY = Tuned(
    _conv1x1_grad_x_skinny_kernel,
    [
        # Stores keep the memory busy where a few programs share an SM; each walks over all or many channels.
        triton.Config({"BLOCK_P": 128, "BLOCK_C": 64, "SPAN": 512}, num_warps=4, num_stages=2),
        triton.Config({"BLOCK_P": 128, "BLOCK_C": 128, "SPAN": 1024}, num_warps=8, num_stages=2),
        triton.Config({"BLOCK_P": 64, "BLOCK_C": 64, "SPAN": 64}, num_warps=4, num_stages=2),  # few pixels
    ],
    KEY,
)
_WIDE = Tuned(
    _conv1x1_grad_x_kernel,
    [
        triton.Config({"BLOCK_P": 128, "BLOCK_C": 128}, num_warps=8, num_stages=2),  # 64 KB: fits everywhere
        triton.Config({"BLOCK_P": 128, "BLOCK_C": 256}, num_warps=8, num_stages=3),  # fewest loads: 192 KB
        triton.Config({"BLOCK_P": 128, "BLOCK_C": 128}, num_warps=4, num_stages=2),  # two a SM
        triton.Config({"BLOCK_P": 64, "BLOCK_C": 128}, num_warps=4, num_stages=3),  # fewer tiles than SMs
    ],
    KEY,
    spilling={1: (8,)},
)


def score_grad_x(
    grad: Tensor,
    weight: Tensor,
    out: Tensor | None,
    grad_x: Tensor,
    scale: float = 1.0,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> None:
    """Writes the gradient of `score` for x to ``grad_x``, on the current device.

    ``out`` is the output where that had ReLU, else None.
    """
    if grad_x.numel() == 0:
        return
    pixels = Pixels.of(grad, grad if out is None else out, grad_x)
    outputs, channels = weight.shape[:2]
    dropout, last_dropped, keep_scale = dropout_arguments(dropout_p, seed)
    line = 128 // grad.element_size()
    skinny = outputs <= SKINNY
    meta = pixels.constants(grad) | {"RELU": out is not None, "DROPOUT": dropout}
    if skinny:
        meta |= {"BLOCK_O": padded(outputs)}
    else:
        meta |= {"BLOCK_O": line, "WHOLE_O": outputs % line == 0, "GROUP": GROUP}
    key = (pixels.size_class, channels, outputs, grad.dtype, grad.device, *meta.values())

    def grid(tile: dict[str, int]) -> tuple[int, ...]:
        tiles = triton.cdiv(pixels.size, tile["BLOCK_P"])
        if skinny:
            return tiles, triton.cdiv(channels, tile["SPAN"])
        return (tiles * triton.cdiv(channels, tile["BLOCK_C"]),)

    (_SKINNY if skinny else _WIDE).launch(
        grid,
        key,
        grad, out, weight, seed if dropout else None, grad_x, *pixels.sizes, channels, outputs,
        *pixels.strides[:2], *weight.stride()[:2], pixels.strides[2],
        scale * keep_scale, last_dropped, pixels.size_class, **meta,
    )  # fmt: skip
