"""The end of the fused loss: partial sums in a fixed order, borders of programs, the scale of the reduction."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _sum(partials, programs, BLOCK: tl.constexpr):
    """Sum of the programs' partial sums, in fp64 and in one fixed order."""
    total = tl.zeros((BLOCK,), tl.float64)
    for k in range(0, programs, BLOCK):
        place = k + tl.arange(0, BLOCK)
        total += tl.load(partials + place, mask=place < programs, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def _upsample_cross_entropy_total_kernel(
    partials, loss, scale, stats, programs, divisor, BLOCK: tl.constexpr
):
    """The loss, the scale of its reduction, and how many pixels were kept, by one program.

    The scale is 1 / divisor, or where that is 0, 1 / the sum of the weights (0 where nothing is kept).
    """
    weight = _sum(partials + programs, programs, BLOCK).to(tl.float32)
    factor = tl.where(weight > 0.0, 1.0 / weight, 0.0)
    if divisor != 0.0:
        factor = tl.full((), 1.0, tl.float32) / divisor
    tl.store(scale, factor)
    tl.store(loss, _sum(partials, programs, BLOCK) * factor)
    tl.store(stats, _sum(partials + 2 * programs, programs, BLOCK).to(tl.int64))
    tl.store(stats + 1, tl.zeros((), tl.int64))


@triton.jit
def _upsample_cross_entropy_finish_kernel(
    grad, seam, rim, scale, C, h, w, g_n, g_c, g_h, g_w,
    columns, x_begin, x_end, y_begin, y_end, band, strips,
    LANES: tl.constexpr, PARTS: tl.constexpr, ROW_PARTS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    OUTER: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Adds the strips that cross the borders of programs, and scales the gradient.

    Own share, then the seam (from the band below), then the rim (from the strip to the right): always in this
    order. Points that no pixel touches become 0. Reads and writes the gradient once. Bound by instructions; no
    exponentials. A tile is rows × columns of a plane, or columns × channels of a row where channels are last.
    """
    outer = (tl.program_id(1) * OUTER + tl.arange(0, OUTER))[:, None]
    inner = (tl.program_id(2) * INNER + tl.arange(0, INNER))[None, :]
    if CHANNELS_LAST:
        n, i = tl.program_id(0) // h, tl.program_id(0) % h
        j, c = outer, inner
        exists = (j < w) & (c < C)
    else:
        n, c = tl.program_id(0) // C, tl.program_id(0) % C
        i, j = outer, inner
        exists = (i < h) & (j < w)
    touched = exists & (i >= y_begin - 1) & (i < y_end) & (j >= x_begin) & (j < x_end)
    plane = grad + n.to(tl.int64) * g_n
    own = plane + i.to(tl.int64) * g_h + (c.to(tl.int64) * g_c + j.to(tl.int64) * g_w)
    value = tl.load(own, mask=touched, other=0.0)

    f = n * columns + (j - x_begin) * PARTS
    above = i + 1 - y_begin
    at_seam = touched & (above > 0) & (above % band == 0) & (i + 1 < y_end)
    program = (above // band).to(tl.int64) * strips + f // LANES
    value += tl.load(seam + (program * C + c) * LANES + f % LANES, mask=at_seam, other=0.0)

    right = f + PARTS
    at_rim = touched & (j + 1 < x_end) & (right % LANES == 0)
    rows = (y_end - y_begin) * ROW_PARTS
    first = (right // LANES).to(tl.int64) * rows + (i - y_begin) * ROW_PARTS
    for part in tl.static_range(ROW_PARTS):
        place = ((first + part) * C + c) * 2
        value += tl.load(rim + place + 1, mask=at_rim & (i >= y_begin), other=0.0)
    for part in tl.static_range(ROW_PARTS, 2 * ROW_PARTS):
        place = ((first + part) * C + c) * 2
        value += tl.load(rim + place, mask=at_rim & (i + 1 < y_end), other=0.0)
    tl.store(own, value * tl.load(scale), mask=exists)
