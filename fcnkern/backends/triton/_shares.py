"""The gradient of a cell's pixels, shared out to the four scores around the cell.

Lane i holds cell i of the strip; it owns the point to the right of its cell and takes the left share of the cell to
the right from that cell's lane. Shares that cross the left border of the strip go to ``rim``. With more than one lane
per cell (``PARTS``) every lane of a cell holds the sum over them, and the first one stores.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def border_weights(start, step, has_low, has_high, ZERO: tl.constexpr):
    """Linear weights (low: a + b·i, high: c + d·i) of pixel i = 1, 2, … of a cell for its two points.

    ``start`` is the fraction of pixel 1. Where a point is missing its weight is 0 (``ZERO``) or goes to the other.
    """
    before = start - step
    low, low_step, high, high_step = 1.0 - before, -step, before, step
    if not ZERO:
        low, low_step = tl.where(has_high, low, 1.0), tl.where(has_high, low_step, 0.0)
        high, high_step = tl.where(has_low, high, 1.0), tl.where(has_low, high_step, 0.0)
    low, low_step = tl.where(has_low, low, 0.0), tl.where(has_low, low_step, 0.0)
    high, high_step = tl.where(has_high, high, 0.0), tl.where(has_high, high_step, 0.0)
    return low, low_step, high, high_step


@triton.jit
def shares_of_moments(plain, by_row, by_column, by_both, y_weights, x_weights):
    """Gradients of the corners (top left, top right, bottom left, bottom right) from four moments."""
    low, low_step, high, high_step = x_weights
    left = low * plain + low_step * by_column
    left_by_row = low * by_row + low_step * by_both
    right = high * plain + high_step * by_column
    right_by_row = high * by_row + high_step * by_both
    top, top_step, bottom, bottom_step = y_weights
    return (
        top * left + top_step * left_by_row,
        top * right + top_step * right_by_row,
        bottom * left + bottom_step * left_by_row,
        bottom * right + bottom_step * right_by_row,
    )


@triton.jit
def _sum_over_parts(x, PARTS: tl.constexpr, LANES: tl.constexpr):
    if PARTS == 1:
        return x
    total = tl.sum(tl.reshape(x, (LANES // PARTS, PARTS)), 1, keep_dims=True)
    return tl.reshape(tl.broadcast_to(total, (LANES // PARTS, PARTS)), (LANES,))


@triton.jit
def store_shares(
    shares, pointers, masks, adds, LANES: tl.constexpr, PARTS: tl.constexpr, ADD_TO_RIM: tl.constexpr
):
    """Writes one class's shares to the points and to the rim.

    ``pointers``: to the lanes' top and bottom points, and to the rim's pair (top, bottom); ``masks``: whether a lane
    stores each of them; ``adds``: whether to add to what the top and the bottom point hold.
    """
    lane = tl.arange(0, LANES)
    neighbour = tl.minimum(lane + PARTS, LANES - 1)
    has_neighbour = tl.where(lane < LANES - PARTS, 1.0, 0.0)
    left_top = _sum_over_parts(shares[0], PARTS, LANES)
    left_bottom = _sum_over_parts(shares[2], PARTS, LANES)
    top = _sum_over_parts(shares[1], PARTS, LANES)
    bottom = _sum_over_parts(shares[3], PARTS, LANES)
    top += has_neighbour * tl.gather(left_top, neighbour, 0)
    bottom += has_neighbour * tl.gather(left_bottom, neighbour, 0)
    top += tl.load(pointers[0], mask=masks[0] & adds[0], other=0.0)
    bottom += tl.load(pointers[1], mask=masks[1] & adds[1], other=0.0)
    if ADD_TO_RIM:
        left_top += tl.load(pointers[2], mask=masks[2], other=0.0)
        left_bottom += tl.load(pointers[2] + 1, mask=masks[2], other=0.0)
    tl.store(pointers[0], top, mask=masks[0])
    tl.store(pointers[1], bottom, mask=masks[1])
    tl.store(pointers[2], left_top, mask=masks[2])
    tl.store(pointers[2] + 1, left_bottom, mask=masks[2])


@triton.jit
def store_nothing(pointers, masks, adds):
    """`store_shares` of zeros."""
    tl.store(pointers[0], 0.0, mask=masks[0] & (adds[0] == 0))
    tl.store(pointers[1], 0.0, mask=masks[1] & (adds[1] == 0))
    tl.store(pointers[2], 0.0, mask=masks[2])
    tl.store(pointers[2] + 1, 0.0, mask=masks[2])


@triton.jit
def next_class(pointers, steps):
    """The pointers of the next class."""
    return pointers[0] + steps[0], pointers[1] + steps[1], pointers[2] + steps[2]
