"""Depthwise and fixed bilinear upsampling: kernels that gather the taps of each output."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._upsample_add_tile import pixel_offsets, skip_tile, store_tile


@triton.jit
def tent(k, S: tl.constexpr):
    """Weight k of Caffe's bilinear filler of kernel 2S - S % 2; 0 beyond it."""
    centre: tl.constexpr = (2 * S - S % 2 - 1) * 0.5
    return tl.maximum(S - tl.abs(tl.cast(k, tl.float32) - centre), 0.0) * (1.0 / S)


@triton.jit(do_not_specialize=["height", "y0", "rows", "skip_y", "size_class"])
def _upsample_gather_fwd_kernel(
    x, x_strides, weight, weight_strides, out, out_strides,
    skip, skip_strides, skip_weight, skip_weight_strides, skip_bias, skip_scale,
    channels, features, height, width, y0, x0, rows, cols, skip_y, skip_x, size_class,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    CO: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr, INDEX: tl.constexpr, PRECISION: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    """Any kernel size and any skip: out[n, :, y0 + (0..rows), x0 + (0..cols)].

    A program owns P pixels in natural order and CO channels; it loads each of the ceil(KH/SY)·ceil(KW/SX) taps of a
    pixel, and its weight where ``weight`` is not None, from the caches. Reads the window of the skip once per tile
    of CO channels, writes out once. Bound by those bytes with features; else by the loads of the taps (the
    kernels below take the common sizes).
    """
    blocks, tiles = tl.cdiv(channels, CO), tl.cdiv(rows * cols, P)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    tile, n = program % tiles, program // tiles
    pixel = tile * P + tl.arange(0, P)
    out_y, out_x = pixel // cols, pixel % cols
    inside = pixel < rows * cols
    channel = block * CO + tl.arange(0, CO)
    known = (channel < channels)[:, None]
    image = x + n.to(tl.int64) * x_strides[0] + (channel.to(tl.int64) * x_strides[1])[:, None]
    total = tl.zeros((CO, P), tl.float32)
    TX: tl.constexpr = (KW + SX - 1) // SX
    for tap in range((KH + SY - 1) // SY * TX):
        ky, kx = (y0 + out_y) % SY + tap // TX * SY, (x0 + out_x) % SX + tap % TX * SX
        i, j = (y0 + out_y) // SY - tap // TX, (x0 + out_x) // SX - tap % TX
        reaches = inside & (ky < KH) & (kx < KW) & (i >= 0) & (i < height) & (j >= 0) & (j < width)
        wanted = known & reaches[None, :]
        v = tl.load(image + pixel_offsets(i, j, x_strides)[None, :], mask=wanted, other=0.0)
        if weight is None:
            w = (tent(ky, SY) * tent(kx, SX))[None, :]
        else:
            lines = weight + (channel.to(tl.int64) * weight_strides[0])[:, None]
            w = tl.load(lines + pixel_offsets(ky, kx, weight_strides)[None, :], mask=wanted, other=0.0)
        total += w.to(tl.float32) * v.to(tl.float32)
    if skip is not None:
        total += skip_tile(
            skip, skip_strides, skip_weight, skip_weight_strides, skip_bias, skip_scale, n, channel,
            pixel_offsets(out_y + skip_y, out_x + skip_x, skip_strides), inside, channels, features,
            CO, P, K, EVEN, INDEX, PRECISION,
        )  # fmt: skip
    store_tile(
        total, out, out_strides, n, channel, pixel_offsets(out_y, out_x, out_strides), inside, channels
    )


@triton.jit(do_not_specialize=["height", "y0", "rows", "skip_y"])
def _upsample_bilinear_fwd_kernel(
    x, x_strides, out, out_strides, skip, skip_strides, skip_scale,
    channels, height, width, y0, x0, rows, cols, skip_y, skip_x,
    SY: tl.constexpr, SX: tl.constexpr, BAND: tl.constexpr, CO: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Fixed bilinear weights with no skip or one of scores: a walk down BAND source rows, SY outputs each.

    A program owns P columns of CO channels. The two columns of a source row are blended once and serve the outputs
    of two row phases: 2/SY loads, 2 + 2/SY multiply-adds and one store an output. Reads x (2 times, from the caches
    but for the first) and the window of the skip, writes out. Bound by those bytes.
    """
    i_begin, i_end = y0 // SY, (y0 + rows - 1) // SY + 1
    blocks, runs, bands = tl.cdiv(channels, CO), tl.cdiv(cols, P), tl.cdiv(i_end - i_begin, BAND)
    program = tl.program_id(0)
    run, program = program % runs, program // runs
    block, program = program % blocks, program // blocks
    band, n = program % bands, program // bands
    out_x = run * P + tl.arange(0, P)
    channel = block * CO + tl.arange(0, CO)
    j, kx = (x0 + out_x) // SX, (x0 + out_x) % SX
    near, far = tent(kx, SX)[None, :], tent(kx + SX, SX)[None, :]
    known = (channel < channels)[:, None]
    has_near = known & ((out_x < cols) & (j < width))[None, :]
    has_far = known & ((out_x < cols) & (j >= 1) & (j <= width) & (kx + SX < 2 * SX - SX % 2))[None, :]
    points = x + n.to(tl.int64) * x_strides[0] + (channel.to(tl.int64) * x_strides[1])[:, None]
    points += (j.to(tl.int64) * x_strides[3])[None, :]
    first = i_begin + band * BAND
    above = _blend(points, first - 1, x_strides, near, far, has_near, has_far, height)
    for i in range(first, tl.minimum(first + BAND, i_end)):
        row = _blend(points, i, x_strides, near, far, has_near, has_far, height)
        for py in range(SY):
            out_y = i * SY + py - y0
            inside = (out_x < cols) & (out_y >= 0) & (out_y < rows)
            value = tent(py, SY) * row
            if SY % 2 == 0:
                value += tent(py + SY, SY) * above
            else:  # the last phase has no tap above: not even 0 times infinity
                value += tl.where(py < SY - 1, tent(py + SY, SY) * above, 0.0)
            if skip is not None:
                value += skip_tile(
                    skip, skip_strides, None, None, None, skip_scale, n, channel,
                    pixel_offsets(out_y + skip_y, out_x + skip_x, skip_strides), inside, channels, 0,
                    CO, P, 1, True, tl.int64, "ieee",
                )  # fmt: skip
            pixels = pixel_offsets(out_y, out_x, out_strides)
            store_tile(value, out, out_strides, n, channel, pixels, inside, channels)
        above = row


@triton.jit
def _blend(points, i, strides, near, far, has_near, has_far, height):
    """Source row i at the columns of a tile: the point to the right and the one to the left of each."""
    there = (i >= 0) & (i < height)
    right = points + tl.cast(i, tl.int64) * strides[2]
    a = tl.load(right, mask=has_near & there, other=0.0).to(tl.float32)
    b = tl.load(right - strides[3], mask=has_far & there, other=0.0).to(tl.float32)
    return near * a + far * b


@triton.jit(do_not_specialize=["height", "y0", "rows", "skip_y"])
def _upsample_depthwise_fwd_kernel(
    x, x_strides, weight, weight_strides, out, out_strides, skip, skip_strides, skip_scale,
    channels, height, width, y0, x0, rows, cols, skip_y, skip_x,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    BAND: tl.constexpr, CO: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Depthwise weights of at most 2 taps an axis, with no skip or one of scores.

    A program owns P columns of CO channels in one row phase and walks down BAND source rows, one output each. The
    four weights of a column and the source row above stay in registers: 2 loads, 4 multiply-adds and one store an
    output. Reads x (2·SY times, from the caches but for the first) and the window of the skip, writes out.
    Bound by the issue of instructions: 1.3 times those bytes' time at ×8 in fp32, by count.
    """
    i_begin, i_end = y0 // SY, (y0 + rows - 1) // SY + 1
    blocks, runs, bands = tl.cdiv(channels, CO), tl.cdiv(cols, P), tl.cdiv(i_end - i_begin, BAND)
    program = tl.program_id(0)
    run, program = program % runs, program // runs
    py, program = program % SY, program // SY
    block, program = program % blocks, program // blocks
    band, n = program % bands, program // bands
    out_x = run * P + tl.arange(0, P)
    channel = block * CO + tl.arange(0, CO)
    j = (x0 + out_x) // SX
    # As if not contiguous: weights in vectors of columns would change the layout of every output.
    kx = tl.max_contiguous((x0 + out_x) % SX, 1)
    known = (channel < channels)[:, None] & (out_x < cols)[None, :]
    taps = weight + (channel.to(tl.int64) * weight_strides[0])[:, None]
    taps += pixel_offsets(py, kx, weight_strides)[None, :]
    down, right = SY * weight_strides[2], SX * weight_strides[3]
    w00 = tl.load(taps, mask=known & ((kx < KW) & (py < KH))[None, :], other=0.0).to(tl.float32)
    w01 = tl.load(taps + right, mask=known & ((kx + SX < KW) & (py < KH))[None, :], other=0.0).to(tl.float32)
    w10 = tl.load(taps + down, mask=known & ((kx < KW) & (py + SY < KH))[None, :], other=0.0).to(tl.float32)
    w11 = tl.load(taps + down + right, mask=known & ((kx + SX < KW) & (py + SY < KH))[None, :], other=0.0).to(
        tl.float32
    )
    has_near = known & ((j < width) & (kx < KW))[None, :]
    has_far = known & ((j >= 1) & (j <= width) & (kx + SX < KW))[None, :]
    points = x + n.to(tl.int64) * x_strides[0] + (channel.to(tl.int64) * x_strides[1])[:, None]
    points += (j.to(tl.int64) * x_strides[3])[None, :]
    first = i_begin + band * BAND
    above_near, above_far = _taps(points, first - 1, x_strides, has_near, has_far, height)
    for i in range(first, tl.minimum(first + BAND, i_end)):
        near, far = _taps(points, i, x_strides, has_near, has_far, height)
        out_y = i * SY + py - y0
        inside = (out_x < cols) & (out_y >= 0) & (out_y < rows)
        value = tl.where(py < KH, w00 * near + w01 * far, 0.0)
        value += tl.where(py + SY < KH, w10 * above_near + w11 * above_far, 0.0)
        if skip is not None:
            value += skip_tile(
                skip, skip_strides, None, None, None, skip_scale, n, channel,
                pixel_offsets(out_y + skip_y, out_x + skip_x, skip_strides), inside, channels, 0,
                CO, P, 1, True, tl.int64, "ieee",
            )  # fmt: skip
        pixels = pixel_offsets(out_y, out_x, out_strides)
        store_tile(value, out, out_strides, n, channel, pixels, inside, channels)
        above_near, above_far = near, far


@triton.jit
def _taps(points, i, strides, has_near, has_far, height):
    there = (i >= 0) & (i < height)
    right = points + tl.cast(i, tl.int64) * strides[2]
    near = tl.load(right, mask=has_near & there, other=0.0).to(tl.float32)
    return near, tl.load(right - strides[3], mask=has_far & there, other=0.0).to(tl.float32)
