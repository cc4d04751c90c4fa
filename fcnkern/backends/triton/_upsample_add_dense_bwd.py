"""Backward of the dense transposed convolution: two gathering GEMMs, split where one has too few tiles."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._math import dot
from fcnkern.backends.triton._upsample_add_tile import next_points, pixel_offsets


@triton.jit(do_not_specialize=["height", "rows"])
def _upsample_dense_grad_x_kernel(
    grad, grad_strides, weight, weight_strides, result, result_strides,
    inputs, outputs, height, width, y0, x0, rows, cols, splits,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, KX: tl.constexpr, LAST: tl.constexpr, WHOLE: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """result[split, n, ci, i, j] = Σ over co, kx and a share of ky of weight · grad[n, co, i·SY+ky, j·SX+kx].

    A program owns J points of x and CI inputs; a step multiplies weights [CI, CO·KX] of one row of the kernel and
    gradients [CO·KX, J]. CO·KX runs over columns of the kernel first, so that both are read along memory
    (LAST: over channels first, for channels_last). Nothing is scattered.

    Reads the gradient ceil(KH/SY)·ceil(KW/SX) times, once from memory and else from the caches; the weights from the
    caches; writes result once. 2·KH·KW·outputs flops per element of x, as far as they are not padded:
    bound by those.
    """
    blocks, tiles = tl.cdiv(inputs, CI), tl.cdiv(height * width, J)
    program = tl.program_id(0)
    split, program = program % splits, program // splits
    block, program = program % blocks, program // blocks
    tile, n = program % tiles, program // tiles
    point = tile * J + tl.arange(0, J)
    i, j = point // width, point % width
    ci = block * CI + tl.arange(0, CI)
    k = tl.arange(0, CO * KX)
    co, kx = (k % CO, k // CO) if LAST else (k // KX, k % KX)
    k_grad = co.to(INDEX) * grad_strides[1] + kx.to(INDEX) * grad_strides[3]
    k_weight = co.to(INDEX) * weight_strides[1] + kx.to(INDEX) * weight_strides[3]
    lines = weight + (ci.to(tl.int64) * weight_strides[0])[:, None]
    image = grad + n.to(tl.int64) * grad_strides[0]

    runs = tl.cdiv(KW, KX)
    steps = tl.cdiv(outputs, CO) * runs
    ky_begin, ky_end = split * KH // splits, (split + 1) * KH // splits
    total = tl.zeros((CI, J), tl.float32)
    for step in range(ky_begin * steps, ky_end * steps):
        ky, first_co, first_kx = step // steps, step % steps // runs * CO, step % runs * KX
        known = (co < outputs - first_co) & (kx < KW - first_kx)
        first = tl.cast(first_co, tl.int64)
        taps = lines + (first * weight_strides[1] + pixel_offsets(ky, first_kx, weight_strides))
        w = tl.load(taps + k_weight[None, :], mask=(ci < inputs)[:, None] & known[None, :], other=0.0)
        y, x = i * SY + ky - y0, j * SX + first_kx - x0
        there = known[:, None] & ((point < height * width) & (y >= 0) & (y < rows))[None, :]
        if not WHOLE:
            column = x[None, :] + kx[:, None]
            there &= (column >= 0) & (column < cols)
        points = image + (first * grad_strides[1] + pixel_offsets(y, x, grad_strides))
        g = tl.load(points[None, :] + k_grad[:, None], mask=there, other=0.0)
        total = dot(w, g, total, PRECISION)
    at = tl.cast(split, tl.int64) * result_strides[0] + n.to(tl.int64) * result_strides[1]
    at += (ci.to(tl.int64) * result_strides[2])[:, None] + pixel_offsets(i, j, result_strides[1:])[None, :]
    wanted = (ci < inputs)[:, None] & (point < height * width)[None, :]
    tl.store(result + at, total.to(result.dtype.element_ty), mask=wanted)


@triton.jit(do_not_specialize=["height", "rows", "splits"])
def _upsample_dense_grad_weight_kernel(
    grad, grad_strides, x, x_strides, result, result_strides,
    images, inputs, outputs, height, width, y0, x0, rows, cols, splits,
    KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, KX: tl.constexpr, LAST: tl.constexpr, WHOLE: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """result[split, ci, co, ky, kx] = Σ over a share of n, i, j of x[n, ci, i, j] · grad[n, co, i·SY+ky, j·SX+kx].

    A program owns CI·CO·KX weights of one row ky of the kernel; a step multiplies scores [CI, J] and gradients
    [J, CO·KX] of J points. The order of CO·KX is that of the kernel above.

    Reads the gradient ceil(KH/SY)·ceil(KW/SX) times and x KH·ceil(outputs·KW/(CO·KX)) times, once from memory and
    else from the caches; writes result once. 2·KH·KW·outputs flops per element of x, as far as they are
    not padded: bound by those.
    """
    runs, blocks, groups = tl.cdiv(KW, KX), tl.cdiv(outputs, CO), tl.cdiv(inputs, CI)
    program = tl.program_id(0)
    run, program = program % runs, program // runs
    block, program = program % blocks, program // blocks
    group, program = program % groups, program // groups
    ky, split = program % KH, program // KH
    ci = group * CI + tl.arange(0, CI)
    k = tl.arange(0, CO * KX)
    co, kx = (k % CO, k // CO) if LAST else (k // KX, k % KX)
    known = (co < outputs - block * CO) & (kx < KW - run * KX)
    k_grad = co.to(INDEX) * grad_strides[1] + kx.to(INDEX) * grad_strides[3]
    k_x = tl.arange(0, CI).to(INDEX) * x_strides[1]
    source = x + tl.cast(group * CI, tl.int64) * x_strides[1]
    target = grad + (
        tl.cast(block * CO, tl.int64) * grad_strides[1] + pixel_offsets(ky - y0, run * KX - x0, grad_strides)
    )

    tiles = tl.cdiv(height * width, J)
    share = tl.cdiv(images * tiles, splits)
    first_i, first_j = tl.arange(0, J) // width, tl.arange(0, J) % width
    point = split * share % tiles * J + tl.arange(0, J)
    i, j = point // width, point % width
    total = tl.zeros((CI, CO * KX), tl.float32)
    for tile in range(split * share, tl.minimum((split + 1) * share, images * tiles)):
        n = tl.cast(tile // tiles, tl.int64)
        points = source + n * x_strides[0] + pixel_offsets(i, j, x_strides)
        wanted = (ci < inputs)[:, None] & (i < height)[None, :]
        v = tl.load(points[None, :] + k_x[:, None], mask=wanted, other=0.0)
        y = i * SY + ky - y0
        there = ((i < height) & (y >= 0) & (y < rows))[:, None] & known[None, :]
        if not WHOLE:
            column = (j * SX + run * KX - x0)[:, None] + kx[None, :]
            there &= (column >= 0) & (column < cols)
        points = target + n * grad_strides[0] + pixel_offsets(i * SY, j * SX, grad_strides)
        g = tl.load(points[:, None] + k_grad[None, :], mask=there, other=0.0)
        total = dot(v, g, total, PRECISION)
        i, j = next_points(i, j, J, width, (tile + 1) % tiles == 0, first_i, first_j)
    channel = block * CO + co
    at = channel.to(tl.int64) * result_strides[2] + pixel_offsets(ky, run * KX + kx, result_strides[1:])
    lines = tl.cast(split, tl.int64) * result_strides[0] + ci.to(tl.int64) * result_strides[1]
    wanted = (ci < inputs)[:, None] & known[None, :]
    tl.store(result + lines[:, None] + at[None, :], total.to(result.dtype.element_ty), mask=wanted)
