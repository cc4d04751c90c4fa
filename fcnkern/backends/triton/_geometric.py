"""A class's scores inside one cell, and sums over the cell's pixels by geometric sequences.

Inside a cell a score is bilinear, so along a row its exponential is a geometric sequence, and from row to row both
its first term and its ratio are geometric too: three exponentials per class and cell, or four where `_twist` takes
one, give those of all pixels. Scores are taken relative to the corners' maxima: a common bilinear function of the
pixel, which softmax does not see.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._math import LOG2_E

LOWEST = tl.constexpr(-1e38)


@triton.jit
def corner_scores(scores, corners, exist, maxima, ZERO: tl.constexpr):
    """Scores of one class at the four corners, less the corners' maxima.

    ``corners``: offsets from ``scores``; ``exist``: 1, or 0 for a corner outside, whose
    score is 0 where ZERO (otherwise its offset is that of the border).
    """
    a = tl.load(scores + corners[0]).to(tl.float32)
    b = tl.load(scores + corners[1]).to(tl.float32)
    c = tl.load(scores + corners[2]).to(tl.float32)
    d = tl.load(scores + corners[3]).to(tl.float32)
    if ZERO:
        a, b, c, d = a * exist[0], b * exist[1], c * exist[2], d * exist[3]
    return a - maxima[0], b - maxima[1], c - maxima[2], d - maxima[3]


@triton.jit
def next_scores(corners, stride_c):
    """The offsets of `corner_scores` for the next class."""
    return corners[0] + stride_c, corners[1] + stride_c, corners[2] + stride_c, corners[3] + stride_c


@triton.jit
def point_maxima(scores, left, right, C, stride_c):
    """Largest score of any class at two points; NaN where there is one."""
    a = tl.full(left.shape, float("-inf"), tl.float32)
    b = a
    for _ in range(C):
        a = tl.maximum(a, tl.load(scores + left).to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
        b = tl.maximum(b, tl.load(scores + right).to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
        scores += stride_c
    return a, b


@triton.jit
def largest_jump(jump, corners):
    """The larger of ``jump`` and the differences between neighbouring corners; NaN where one is NaN."""
    a, b, c, d = corners
    across = tl.maximum(tl.abs(b - a), tl.abs(d - c), propagate_nan=tl.PropagateNan.ALL)
    down = tl.maximum(tl.abs(c - a), tl.abs(d - b), propagate_nan=tl.PropagateNan.ALL)
    larger = tl.maximum(across, down, propagate_nan=tl.PropagateNan.ALL)
    return tl.maximum(jump, larger, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def bilinear(corners, start_y, step_y, start_x, step_x):
    """The score at pixel (row v, column r) of the cell as z + r·dz + v·gz + r·v·dg, in binary orders.

    z stays finite where a class is masked by the lowest number of its type: it meets moments that are 0.
    """
    a, b, c, d = corners
    left, right = c - a, d - b
    first = a + start_y * left
    across = (b + start_y * right) - first
    twist = right - left
    z = tl.maximum((first + start_x * across) * LOG2_E, LOWEST)
    dz = across * (step_x * LOG2_E)
    gz = (left + start_x * twist) * (step_y * LOG2_E)
    return z, dz, gz, twist * (step_y * step_x * LOG2_E)


@triton.jit
def _twist(x, DOUBLINGS: tl.constexpr):
    """By what the ratio of a row differs from that of the row before, for `_twisted`; x in binary orders.

    2^x - 1, near 0 to a few ulp of the result, for the use of high powers of 2^x: a polynomial of x / 2^DOUBLINGS for
    |x| up to 2.2 · DOUBLINGS. Where DOUBLINGS is 0, 2^x, which may be so small that 2^x - 1 were -1.
    """
    if DOUBLINGS == 0:
        return tl.exp2(x)
    y = x * (0.5**DOUBLINGS / LOG2_E)
    p = 1.0 / 120 + y * (1.0 / 720)
    p = 1.0 / 6 + y * (1.0 / 24 + y * p)
    p = y + y * y * (0.5 + y * p)
    for _ in tl.static_range(DOUBLINGS):
        p = p * (p + 2.0)
    return p


@triton.jit
def _twisted(ratio, twist, DOUBLINGS: tl.constexpr):
    """The next row's ratio."""
    if DOUBLINGS == 0:
        return ratio * twist
    return ratio + ratio * twist


@triton.jit
def add_exponentials(sums, score, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DOUBLINGS: tl.constexpr):
    """Adds one class's exponentials to the sums of all pixels of the cell.

    3 exponentials (4 without DOUBLINGS) and 1.5 operations a pixel.
    """
    z, dz, gz, dg = score
    start = tl.exp2(z)
    ratio = tl.exp2(dz)
    down = tl.exp2(gz)
    twist = _twist(dg, DOUBLINGS)
    total = ()
    for v in tl.static_range(ROWS):
        term = start
        square = ratio * ratio
        for r in tl.static_range(COLUMNS // 2):
            total = total + (sums[v * COLUMNS + 2 * r] + term, sums[v * COLUMNS + 2 * r + 1] + term * ratio)
            term = term * square
        if COLUMNS % 2 == 1:
            total = total + (sums[v * COLUMNS + COLUMNS - 1] + term,)
        start = start * down
        ratio = _twisted(ratio, twist, DOUBLINGS)
    return total


@triton.jit
def moments(factors, score, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DOUBLINGS: tl.constexpr):
    """Sums of factor · exponential over the cell's pixels, weighted by 1, row, column and row · column.

    Rows and columns count from 1. By Horner's rule from the last pixel: 2 operations a pixel, 3 exponentials
    (4 without DOUBLINGS).
    """
    z, dz, gz, dg = score
    ratio = tl.exp2(dz + (ROWS - 1) * dg)
    down = tl.exp2(gz)
    untwist = _twist(-dg, DOUBLINGS)
    for v in tl.static_range(ROWS - 1, -1, -1):
        p = factors[v * COLUMNS + COLUMNS - 1]
        q = p
        for r in tl.static_range(COLUMNS - 2, -1, -1):
            p = p * ratio + factors[v * COLUMNS + r]
            q = q * ratio + p
        if v == ROWS - 1:
            plain, by_row, by_column, by_both = p, p, q, q
        else:
            plain = plain * down + p
            by_row = by_row * down + plain
            by_column = by_column * down + q
            by_both = by_both * down + by_column
        ratio = _twisted(ratio, untwist, DOUBLINGS)
    start = tl.exp2(z)
    return plain * start, by_row * start, by_column * start, by_both * start
