"""Backward of depthwise and fixed bilinear upsampling, and the sum of partial results."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._upsample_add_gather import tent
from fcnkern.backends.triton._upsample_add_tile import next_points, pixel_offsets


@triton.jit
def _in_window(y, column, rows, cols):
    """Which of rows y [J] and columns [J, KX] lie in the window, as [1, J, KX]."""
    return ((y >= 0) & (y < rows))[None, :, None] & ((column >= 0) & (column < cols))[None, :, :]


@triton.jit(do_not_specialize=["height", "rows"])
def _upsample_gather_grad_x_kernel(
    grad, grad_strides, weight, weight_strides, result, result_strides,
    channels, height, width, y0, x0, rows, cols,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    CO: tl.constexpr, J: tl.constexpr, KX: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """result[n, c, i, j] = Σ over ky, kx of weight[c, ky, kx] · grad[n, c, i·SY+ky, j·SX+kx].

    A program owns J points of CO channels. It multiplies rows of the gradient under KX columns of the kernel into
    [CO, J, KX] sums and adds up columns once at the end, so that NCHW gradients are read along rows (CO = 1) and
    channels_last ones along channels (KX = 1).

    Reads the gradient ceil(KH/SY)·ceil(KW/SX) times, once from memory and else from the caches; writes result once.
    One load and one multiply-add a tap. Bound by the issue of instructions: twice those bytes' time at ×8 in fp32,
    by count.
    """
    blocks, tiles = tl.cdiv(channels, CO), tl.cdiv(height * width, J)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    tile, n = program % tiles, program // tiles
    point = tile * J + tl.arange(0, J)
    i, j = point // width, point % width
    channel = block * CO + tl.arange(0, CO)
    owned = (channel < channels)[:, None] & (point < height * width)[None, :]
    runs = tl.cdiv(KW, KX)
    k = tl.arange(0, KX)
    column = (j * SX - x0)[:, None] + k[None, :]
    points = grad + n.to(tl.int64) * grad_strides[0] + (channel.to(tl.int64) * grad_strides[1])[:, None, None]
    points += pixel_offsets((i * SY - y0)[:, None], column, grad_strides)[None, :, :]
    total = tl.zeros((CO, J, KX), tl.float32)
    for step in range(KH * runs):
        ky, kx = step // runs, step % runs * KX + k
        known = owned[:, :, None]
        if KW % KX != 0:
            known &= (kx < KW)[None, None, :]
        if not WHOLE:
            known &= _in_window(i * SY + ky - y0, column + step % runs * KX, rows, cols)
        shift = pixel_offsets(ky, step % runs * KX, grad_strides)
        g = tl.load(points + shift, mask=known, other=0.0).to(tl.float32)
        if weight is None:
            w = (tent(ky, SY) * tent(kx, SX))[None, :]
        else:
            taps = (channel.to(tl.int64) * weight_strides[0])[:, None]
            taps += pixel_offsets(ky, kx, weight_strides)[None, :]
            w = tl.load(weight + taps, mask=(channel < channels)[:, None] & (kx < KW)[None, :], other=0.0)
        total += w.to(tl.float32)[:, None, :] * g
    at = n.to(tl.int64) * result_strides[0] + (channel.to(tl.int64) * result_strides[1])[:, None]
    at += pixel_offsets(i, j, result_strides)[None, :]
    tl.store(result + at, tl.sum(total, 2).to(result.dtype.element_ty), mask=owned)


@triton.jit(do_not_specialize=["height", "rows", "splits"])
def _upsample_depthwise_grad_weight_kernel(
    grad, grad_strides, x, x_strides, result, result_strides,
    images, channels, height, width, y0, x0, rows, cols, splits,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    CO: tl.constexpr, J: tl.constexpr, KX: tl.constexpr, KY: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """result[split, c, 0, ky, kx] = Σ over a share of n, i, j of x[n, c, i, j] · grad[n, c, i·SY+ky, j·SX+kx].

    A program owns KY rows of KX weights in CO channels: for each row a tuple holds [CO, J, KX] sums, in which
    points are added up once at the end. Reads the gradient as the kernel above does and x KH·KW/(KY·KX) times,
    once from memory and else from the caches; writes result once. One load and one multiply-add a tap. Bound by
    those bytes.
    """
    blocks, runs, tiles = tl.cdiv(channels, CO), tl.cdiv(KW, KX), tl.cdiv(height * width, J)
    program = tl.program_id(0)
    run, program = program % runs, program // runs
    line, program = program % tl.cdiv(KH, KY), program // tl.cdiv(KH, KY)
    block, split = program % blocks, program // blocks
    channel = block * CO + tl.arange(0, CO)
    kx = run * KX + tl.arange(0, KX)
    used = (channel < channels)[:, None] & (kx < KW)[None, :]
    k = tl.arange(0, KX)
    source = x + (channel.to(tl.int64) * x_strides[1])[:, None]
    target = (
        grad
        + (channel.to(tl.int64) * grad_strides[1])[:, None, None]
        + (k.to(tl.int64) * grad_strides[3])[None, None, :]
    )
    target += pixel_offsets(line * KY - y0, run * KX - x0, grad_strides)
    share = tl.cdiv(images * tiles, splits)
    first_i, first_j = tl.arange(0, J) // width, tl.arange(0, J) % width
    point = split * share % tiles * J + tl.arange(0, J)
    i, j = point // width, point % width
    totals = (tl.zeros((CO, J, KX), tl.float32),) * KY
    for tile in range(split * share, tl.minimum((split + 1) * share, images * tiles)):
        n = tl.cast(tile // tiles, tl.int64)
        owned = (channel < channels)[:, None] & (i < height)[None, :]
        points = source + n * x_strides[0] + pixel_offsets(i, j, x_strides)[None, :]
        v = tl.load(points, mask=owned, other=0.0).to(tl.float32)
        known = owned[:, :, None]
        if KW % KX != 0:
            known &= (kx < KW)[None, None, :]
        shift = n * grad_strides[0] + pixel_offsets(i * SY, j * SX, grad_strides)
        points = target + shift[None, :, None]
        sums = totals[KY:]
        for r in tl.static_range(KY):
            wanted = known & (line * KY + r < KH)
            if not WHOLE:
                column = (j * SX - x0)[:, None] + kx[None, :]
                wanted &= _in_window(i * SY + line * KY + r - y0, column, rows, cols)
            g = tl.load(points + tl.cast(r, tl.int64) * grad_strides[2], mask=wanted, other=0.0)
            sums += (totals[r] + v[:, :, None] * g.to(tl.float32),)
        totals = sums
        i, j = next_points(i, j, J, width, (tile + 1) % tiles == 0, first_i, first_j)
    results = result + tl.cast(split, tl.int64) * result_strides[0]
    results += (channel.to(tl.int64) * result_strides[1])[:, None]
    for r in tl.static_range(KY):
        at = pixel_offsets(line * KY + r, kx, result_strides[1:])[None, :]
        value = tl.sum(totals[r], 1).to(result.dtype.element_ty)
        tl.store(results + at, value, mask=used & (line * KY + r < KH))


@triton.jit(do_not_specialize=["splits"])
def _sum_partials_kernel(partial, result, count, splits, BLOCK: tl.constexpr):
    """result[e] = Σ over splits of partial[split, e], in the order of the splits.

    Reads the fp32 partial results once, writes count elements. Bound by those bytes.
    """
    e = tl.cast(tl.program_id(0), tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(splits):
        total += tl.load(partial + tl.cast(split, tl.int64) * count + e, mask=e < count, other=0.0)
    tl.store(result + e, total.to(result.dtype.element_ty), mask=e < count)
