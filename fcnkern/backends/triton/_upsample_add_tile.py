"""Tiles of output pixels: what the forward kernels of `upsample_add` share.

A tile is [channels, pixels] with pixels last. Triton spreads threads over the last axis first, so a warp reads and
writes neighbouring pixels of an NCHW tensor; in a channels_last one the stride of channels is known to be 1 and
the threads run over channels. Neither needs a copy.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._math import dot


@triton.jit
def pixel_offsets(y, x, strides):
    """Offsets of the pixels (y, x) in an image, 64 bits wide."""
    return tl.cast(y, tl.int64) * strides[2] + tl.cast(x, tl.int64) * strides[3]


@triton.jit
def next_points(i, j, step, width, first, first_i, first_j):
    """The points ``step`` further on in rows of ``width``, without a division; (first_i, first_j) if ``first``."""
    j += step % width
    wraps = j >= width
    i += step // width + wraps.to(tl.int32)
    j = tl.where(wraps, j - width, j)
    return tl.where(first, first_i, i), tl.where(first, first_j, j)


@triton.jit
def skip_tile(
    skip, strides, weight, weight_strides, bias, scale, n, channel, pixels, inside, outputs, features,
    CO: tl.constexpr, P: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr, INDEX: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The skip on a tile, [CO, P] in fp32: scores times ``scale``, or features scored by ``weight`` (K at a time).

    Each feature of the tile is read once. 2 CO flops per feature.
    """
    image = skip + n.to(tl.int64) * strides[0]
    if weight is None:
        at = (channel.to(tl.int64) * strides[1])[:, None] + pixels[None, :]
        wanted = (channel < outputs)[:, None] & inside[None, :]
        total = tl.load(image + at, mask=wanted, other=0.0).to(tl.float32) * scale
    else:  # what follows a return in an if is compiled all the same, and here are no weights' strides
        total = _score(
            image + pixels[None, :], strides, weight, weight_strides, bias, scale, channel, inside, outputs,
            features, CO, P, K, EVEN, INDEX, PRECISION,
        )  # fmt: skip
    return total


@triton.jit
def _score(
    columns, strides, weight, weight_strides, bias, scale, channel, inside, outputs, features,
    CO: tl.constexpr, P: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr, INDEX: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """[CO, P] scores of the features at ``columns``, addresses [1, P] of the first of them."""
    total = tl.zeros((CO, P), tl.float32)
    k = tl.arange(0, K)
    rows = weight + (channel.to(tl.int64) * weight_strides[0])[:, None]
    for first in range(0, features, K):
        known = (channel < outputs)[:, None]
        wanted = inside[None, :]
        if not EVEN:
            known &= (k < features - first)[None, :]
            wanted &= (k < features - first)[:, None]
        w = tl.load(rows + (k.to(INDEX) * weight_strides[1])[None, :], mask=known, other=0.0)
        f = tl.load(columns + (k.to(INDEX) * strides[1])[:, None], mask=wanted, other=0.0)
        total = dot(w, f, total, PRECISION)
        rows += K * tl.cast(weight_strides[1], tl.int64)
        columns += K * tl.cast(strides[1], tl.int64)
    total *= scale
    if bias is not None:
        total += tl.load(bias + channel, mask=channel < outputs, other=0.0).to(tl.float32)[:, None]
    return total


@triton.jit
def store_tile(tile, out, strides, n, channel, pixels, inside, outputs):
    """Writes a [CO, P] tile in the type of ``out``."""
    at = (channel.to(tl.int64) * strides[1])[:, None] + pixels[None, :]
    wanted = (channel < outputs)[:, None] & inside[None, :]
    tl.store(out + n.to(tl.int64) * strides[0] + at, tile.to(out.dtype.element_ty), mask=wanted)
