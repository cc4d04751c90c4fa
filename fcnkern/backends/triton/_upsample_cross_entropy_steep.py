"""The fused loss for cells whose scores are steep or not finite: every exponential for itself.

Slow and exact, as `torch.nn.functional.interpolate` and `cross_entropy` are: three passes over the classes for each
pixel, its true maximum, and 0 · inf where they have it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._cell_labels import pixel_class
from fcnkern.backends.triton._loss_pixels import class_factors, pixel_factor
from fcnkern.backends.triton._math import LN_2, LOG2_E, divide, log2
from fcnkern.backends.triton._pixels import is_class
from fcnkern.backends.triton._shares import border_weights, next_class, store_shares


@triton.jit
def _weighted(weight, x, ZERO: tl.constexpr):
    """weight · x; a weight of 0 is no tap at all where the border is zero."""
    return tl.where(weight == 0.0, 0.0, weight * x) if ZERO else weight * x


@triton.jit
def _score(points, masks, y, x, ZERO: tl.constexpr):
    """One class's score at the fractions y and x of the way from the top left point."""
    a = tl.load(points[0], mask=masks[0], other=0.0).to(tl.float32)
    b = tl.load(points[1], mask=masks[1], other=0.0).to(tl.float32)
    c = tl.load(points[2], mask=masks[2], other=0.0).to(tl.float32)
    d = tl.load(points[3], mask=masks[3], other=0.0).to(tl.float32)
    left = _weighted(1.0 - y, a, ZERO) + _weighted(y, c, ZERO)
    right = _weighted(1.0 - y, b, ZERO) + _weighted(y, d, ZERO)
    return _weighted(1.0 - x, left, ZERO) + _weighted(x, right, ZERO)


@triton.jit
def _next(points, stride_c):
    return points[0] + stride_c, points[1] + stride_c, points[2] + stride_c, points[3] + stride_c


@triton.jit
def _statistics(points, masks, y, x, C, stride_c, ZERO: tl.constexpr):
    """The largest score of a pixel, and the sum of the exponentials relative to it."""
    largest = tl.full(x.shape, float("-inf"), tl.float32)
    again = points
    for _ in range(C):
        largest = tl.maximum(largest, _score(points, masks, y, x, ZERO))
        points = _next(points, stride_c)
    total = tl.zeros_like(x)
    for _ in range(C):
        total += tl.exp2((_score(again, masks, y, x, ZERO) - largest) * LOG2_E)
        again = _next(again, stride_c)
    return largest, total


@triton.jit
def _shares(p, y_weights, x_weights, ZERO: tl.constexpr):
    """What the four corners get of a pixel's gradient."""
    left, right = _weighted(x_weights[0], p, ZERO), _weighted(x_weights[2], p, ZERO)
    return (
        _weighted(y_weights[0], left, ZERO),
        _weighted(y_weights[0], right, ZERO),
        _weighted(y_weights[2], left, ZERO),
        _weighted(y_weights[2], right, ZERO),
    )


@triton.jit
def add_steep_cells(
    pixels, words, weights, losses, points, masks, cell, sides, first_y, count_y, first_x, count_x,
    pointers, steps, stores, n, C, stride_c, ignore_index, sampling_cell,
    LANES: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr, ZERO: tl.constexpr, GRAD: tl.constexpr,
    MAP: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr, PIXEL_WEIGHT: tl.constexpr,
    SAMPLING: tl.constexpr, COARSE: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    """Adds the gradient to the points; returns the loss.

    ``sides``: whether there are points to the left, right, top and bottom.
    """
    total = tl.zeros_like(cell[2])
    for v in range(count_y):
        y = cell[0] + v * cell[1]
        y_weights = border_weights(y, 0.0, sides[2], sides[3], ZERO)
        for r in range(COLUMNS):
            x = cell[2] + r * cell[3]
            x_weights = border_weights(x, 0.0, sides[0], sides[1], ZERO)
            Y, X = first_y + v, first_x + r
            pointer = pixels[0] + Y.to(tl.int64) * pixels[5] + X.to(tl.int64) * pixels[6]
            place = (n.to(tl.int64) * pixels[7] + Y) * pixels[8] + X
            kind, found = pixel_class(
                pixels,
                pointer,
                words,
                n,
                Y,
                X,
                r < count_x,
                C,
                ignore_index,
                sampling_cell,
                SAMPLING,
                COARSE,
                HARD,
            )
            counts = is_class(kind, C)
            factor = pixel_factor(kind, C, weights, place, WEIGHTED, SMOOTH, PIXEL_WEIGHT)
            scale = tl.where(counts, LOG2_E, 0.0)
            if PIXEL_WEIGHT:
                scale *= tl.load(weights[2] + place, mask=counts, other=0.0)
            largest, sum_here = _statistics(points, masks, y, x, C, stride_c, ZERO)
            loss = tl.where(counts, factor * log2(sum_here), 0.0)
            share = divide(factor, sum_here)
            class_points, class_pointers = points, pointers
            for c in range(C):
                less = _score(class_points, masks, y, x, ZERO) - largest
                class_points = _next(class_points, stride_c)
                class_weight, of_target, of_all = class_factors(c, C, weights, WEIGHTED, SMOOTH)
                aimed = tl.where(kind == c, of_target, 0.0)
                if SMOOTH:
                    aimed += tl.where(counts, of_all, 0.0)
                loss -= tl.where(aimed != 0.0, aimed * (less * scale), 0.0)
                if GRAD:
                    p = share * tl.exp2(less * LOG2_E) - aimed * (scale * LN_2)
                    shares = _shares(tl.where(counts, p, 0.0), y_weights, x_weights, ZERO)
                    store_shares(shares, class_pointers, stores, (True, True), LANES, PARTS, True)
                    class_pointers = next_class(class_pointers, steps)
            total += loss
            if MAP:
                tl.store(losses + place, loss * LN_2, mask=counts)
    return total
