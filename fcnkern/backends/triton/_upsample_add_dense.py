"""Dense transposed convolution by output phase, with the skip in the same tile."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._math import dot
from fcnkern.backends.triton._upsample_add_tile import pixel_offsets, skip_tile, store_tile


@triton.jit(do_not_specialize=["height", "y0", "rows", "skip_y", "size_class"])
def _upsample_dense_fwd_kernel(
    x, x_strides, weight, weight_strides, out, out_strides,
    skip, skip_strides, skip_weight, skip_weight_strides, skip_bias, skip_scale,
    inputs, outputs, features, height, width, y0, x0, rows, cols, skip_y, skip_x, size_class,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, PX: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """out[n, :, y0 + (0..rows), x0 + (0..cols)] of the transposed convolution, plus the skip.

    A program owns J cells (i, j) of one row phase and PX neighbouring column phases: the P = J·PX pixels
    (i·SY + py, j·SX + px), in natural order along a row, so that features and outputs are read and written whole
    sectors at a time. For each of the ceil(KH/SY)·ceil(KW/SX) taps that reach the phases it multiplies weights
    [CO·PX, CI] and scores [CI, J]; no product with a zero of another phase is formed, and a score serves PX
    phases. The sum [CO·PX, J] is turned into [CO, J·PX] once, through shared memory, to meet the skip.

    Reads the window of the skip once per tile of CO outputs, x and weight from the caches; writes out once.
    Flops: 2·taps·inputs·outputs and 2·features·outputs a pixel, CO in place of outputs and CI in place of
    inputs as far as they are padded. Bound by reading the features where there are some.
    """
    J: tl.constexpr = P // PX
    j_begin, j_end = x0 // SX, (x0 + cols - 1) // SX + 1
    i_begin, i_end = y0 // SY, (y0 + rows - 1) // SY + 1
    tiles = tl.cdiv((i_end - i_begin) * (j_end - j_begin), J)
    blocks = tl.cdiv(outputs, CO)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    group, program = program % tl.cdiv(SX, PX), program // tl.cdiv(SX, PX)
    tile, program = program % tiles, program // tiles
    py, n = program % SY, program // SY

    pixel = tl.arange(0, P)
    cell = tile * J + pixel // PX
    px = group * PX + pixel % PX
    out_y = (i_begin + cell // (j_end - j_begin)) * SY + py - y0
    out_x = (j_begin + cell % (j_end - j_begin)) * SX + px - x0
    inside = (out_y >= 0) & (out_y < rows) & (out_x >= 0) & (out_x < cols) & (px < SX)
    channel = block * CO + tl.arange(0, CO)

    total = _dense_taps(
        x, x_strides, weight, weight_strides, n, tile, py, group * PX, block * CO,
        i_begin, j_begin, j_end, inputs, outputs, height, width, KH, KW, SY, SX, CI, CO, PX, J, INDEX,
        PRECISION,
    )  # fmt: skip
    if skip is not None:
        total += skip_tile(
            skip, skip_strides, skip_weight, skip_weight_strides, skip_bias, skip_scale, n, channel,
            pixel_offsets(out_y + skip_y, out_x + skip_x, skip_strides), inside, outputs, features,
            CO, P, K, EVEN, INDEX, PRECISION,
        )  # fmt: skip
    store_tile(total, out, out_strides, n, channel, pixel_offsets(out_y, out_x, out_strides), inside, outputs)


@triton.jit
def _dense_taps(
    x, x_strides, weight, weight_strides, n, tile, py, first_px, first_channel,
    i_begin, j_begin, j_end, inputs, outputs, height, width,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, PX: tl.constexpr, J: tl.constexpr, INDEX: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The transposed convolution on a tile: [CO, J·PX]."""
    cell = tile * J + tl.arange(0, J)
    i, j = i_begin + cell // (j_end - j_begin), j_begin + cell % (j_end - j_begin)
    line = tl.arange(0, CO * PX)
    channel, px = first_channel + line // PX, first_px + line % PX
    lines = weight + channel.to(tl.int64) * weight_strides[1]
    image = x + n.to(tl.int64) * x_strides[0]
    TX: tl.constexpr = (KW + SX - 1) // SX
    TAPS: tl.constexpr = (KH + SY - 1) // SY * TX
    total = tl.zeros((CO * PX, J), tl.float32)
    k = tl.arange(0, CI)
    for step in range(tl.cdiv(inputs, CI) * TAPS):
        ty, tx = step % TAPS // TX, step % TX
        first = step // TAPS * CI
        ky, kx = py + ty * SY, px + tx * SX
        known = (channel < outputs) & (ky < KH) & (kx < KW) & (px < SX)
        taps = lines + tl.cast(ky, tl.int64) * weight_strides[2] + kx.to(tl.int64) * weight_strides[3]
        taps += tl.cast(first, tl.int64) * weight_strides[0]
        w = tl.load(
            taps[:, None] + (k.to(INDEX) * weight_strides[0])[None, :],
            mask=known[:, None] & (k < inputs - first)[None, :],
            other=0.0,
        )
        source_y, source_x = i - ty, j - tx
        there = (source_y >= 0) & (source_y < height) & (source_x >= 0) & (source_x < width)
        points = (
            image + pixel_offsets(source_y, source_x, x_strides) + tl.cast(first, tl.int64) * x_strides[1]
        )
        v = tl.load(
            points[None, :] + (k.to(INDEX) * x_strides[1])[:, None],
            mask=(k < inputs - first)[:, None] & there[None, :],
            other=0.0,
        )
        if KH % SY == 0 and KW % SX == 0:
            total = dot(w, v, total, PRECISION)
        else:  # a phase that has no such tap must not see 0 times infinity
            product = dot(w, v, tl.zeros((CO * PX, J), tl.float32), PRECISION)
            total += tl.where(known[:, None], product, 0.0)
    return total.reshape(CO, PX, J).permute(0, 2, 1).reshape(CO, J * PX)
