"""The loss of single pixels: what multiplies a pixel's logarithm, and its gradient's factor."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._geometric import bilinear, corner_scores
from fcnkern.backends.triton._math import LN_2, divide, log2
from fcnkern.backends.triton._pixels import class_of, is_class

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def pixel_factor(
    kind, C, weights, place, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr, PIXEL_WEIGHT: tl.constexpr
):
    """What multiplies the log of a pixel's sum of exponentials: u ((1 - ε) w[label] + ε Σ w / C).

    ``weights``: pointers to class weights, their sum and pixel weights u, and ε; ``kind``: no class where nothing
    counts.
    """
    class_weight, total_weight, pixel_weight, smoothing = weights
    counts = is_class(kind, C)
    factor = tl.where(counts, 1.0, 0.0)
    if WEIGHTED:
        factor = tl.load(class_weight + kind, mask=counts, other=0.0)
        if SMOOTH:
            spread = smoothing * tl.load(total_weight) / C
            factor = tl.where(counts, (1.0 - smoothing) * factor + spread, 0.0)
    if PIXEL_WEIGHT:
        factor *= tl.load(pixel_weight + place, mask=counts, other=0.0)
    return factor


@triton.jit
def class_factors(c, C, weights, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr):
    """(w[c], weight of class c as a target, weight of class c at every pixel that counts)."""
    class_weight, total_weight, pixel_weight, smoothing = weights
    weight = tl.load(class_weight + c) if WEIGHTED else 1.0
    of_target, of_all = weight, 0.0
    if SMOOTH:  # no return here: what follows it would be compiled too, and returns another type
        of_target, of_all = weight * (1.0 - smoothing), weight * smoothing / C
    return weight, of_target, of_all


@triton.jit
def empty_sums(kept, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Per pixel 0, or infinity where it does not count."""
    low = kept.to(tl.int32)
    high = (kept >> 32).to(tl.int32)
    sums = ()
    for i in tl.static_range(ROWS * COLUMNS):
        bit = (low >> i) & 1 if i < 32 else (high >> (i - 32)) & 1
        sums = sums + (tl.where(bit != 0, 0.0, INFINITY),)
    return sums


@triton.jit
def finish_equal_pixels(sums, loss, NUMBER: tl.constexpr):
    """Adds log2 of the pixels' sums, two at a time, to the loss; returns it and the reciprocals.

    A pixel that does not count has an infinite sum. Half a logarithm and one reciprocal a pixel.
    """
    factors = ()
    for i in tl.static_range(NUMBER):
        factors = factors + (divide(1.0, sums[i]),)
    for i in tl.static_range(NUMBER // 2):
        one, other = sums[2 * i], sums[2 * i + 1]
        one = tl.where(one < INFINITY, one, 1.0)
        other = tl.where(other < INFINITY, other, 1.0)
        loss += log2(one * other)
    if NUMBER % 2 == 1:
        loss += log2(tl.where(sums[NUMBER - 1] < INFINITY, sums[NUMBER - 1], 1.0))
    return loss, factors


@triton.jit
def finish_weighted_pixels(
    sums, loss, pixels, weights, n, first_y, first_x, C, ignore_index,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr,
    PIXEL_WEIGHT: tl.constexpr,
):  # fmt: skip
    """The same with a factor per pixel; one logarithm and one reciprocal a pixel.

    Both loops take the first of a tuple and put its factor at the end: Triton's passes take a time that grows with
    the loads as they stand, here those of one pixel. The loop over a row is unrolled in machine code.
    """
    target, limits, seed, hard, cuts, t_h, t_w, H, W = pixels
    row = target + first_y.to(tl.int64) * t_h + first_x.to(tl.int64) * t_w
    place = (n.to(tl.int64) * H + first_y) * W + first_x
    factors = sums
    for _ in range(ROWS):
        line = ()
        for r in tl.static_range(COLUMNS):
            total = factors[r]
            counts = total < INFINITY
            kind = class_of(tl.load(row + r * t_w, mask=counts, other=ignore_index), C, ignore_index)
            factor = pixel_factor(kind, C, weights, place + r, WEIGHTED, SMOOTH, PIXEL_WEIGHT)
            loss += factor * log2(tl.where(counts, total, 1.0))
            line = line + (divide(factor, total),)
        factors = factors[COLUMNS:] + line
        row += t_h
        place += W
    return loss, factors


@triton.jit
def store_losses(
    losses, sums, pixels, weights, scores, corners, exist, maxima, cell, smoothed, n, first_y, first_x,
    C, stride_c, ignore_index,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ZERO: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr,
):  # fmt: skip
    """Writes the losses of the pixels that count, in the loops of `finish_weighted_pixels`.

    ``smoothed``: Σ of all classes' scores, weighted for smoothing.
    """
    target, limits, seed, hard, cuts, t_h, t_w, H, W = pixels
    start_y, step_y, start_x, step_x = cell
    row = target + first_y.to(tl.int64) * t_h + first_x.to(tl.int64) * t_w
    place = (n.to(tl.int64) * H + first_y) * W + first_x
    for v in range(ROWS):
        pointer = row
        line = sums[:COLUMNS]
        for r in range(COLUMNS):
            total = line[0]
            line = line[1:] + (total,)
            counts = total < INFINITY
            kind = class_of(tl.load(pointer, mask=counts, other=ignore_index), C, ignore_index)
            pointer += t_w
            picked = tl.where(counts, kind, 0)
            at = scores + picked * stride_c
            score = bilinear(
                corner_scores(at, corners, exist, maxima, ZERO),
                start_y + v * step_y,
                step_y,
                start_x + r * step_x,
                step_x,
            )
            of = class_factors(picked, C, weights, WEIGHTED, SMOOTH)
            factor = pixel_factor(kind, C, weights, place, WEIGHTED, SMOOTH, False)
            loss = factor * log2(tl.where(counts, total, 1.0)) - of[1] * score[0]
            if SMOOTH:
                loss -= smoothed[0] + r * smoothed[1] + v * smoothed[2] + (r * v) * smoothed[3]
            tl.store(losses + place + r, loss * LN_2, mask=counts)
        sums = sums[COLUMNS:] + line
        row += t_h
        place += W
