"""The loss of scores at full size, the sum of weights, and the count of correct pixels: one lane per pixel."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._cell_labels import pixel_class
from fcnkern.backends.triton._loss_pixels import class_factors, pixel_factor
from fcnkern.backends.triton._math import LN_2, LOG2_E, divide, log2
from fcnkern.backends.triton._pixels import is_class, report_label


@triton.jit
def _read_pixels(
    target, limits, seed, hard, cuts, first_n, first_y, rows, t_n, t_h, t_w, H, W, C, ignore_index, sampling_cell,
    BLOCK: tl.constexpr, SAMPLING: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    """Pixels of some rows of an image: image, row among those, column, existence, place, class, the label's, pointer.

    All programs are along one axis of the grid: the others hold 65535 at most.
    """
    blocks = tl.cdiv(rows * W, BLOCK)
    image = tl.program_id(0) // blocks
    p = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    row, X = p // W, p % W
    inside = row < rows
    n, Y = first_n + image, first_y + row
    pointer = target + n.to(tl.int64) * t_n + Y.to(tl.int64) * t_h + X.to(tl.int64) * t_w
    pixels = (target, limits, seed, hard, cuts, t_h, t_w, H, W)
    kind, found = pixel_class(
        pixels, pointer, (0, 0), n, Y, X, inside, C, ignore_index, sampling_cell, SAMPLING, False, HARD
    )
    return image, row, X, inside, (n.to(tl.int64) * H + Y) * W + X, kind, found, pointer


@triton.jit(do_not_specialize=["H", "first_n", "first_y", "rows"])
def _upsample_cross_entropy_pixels_kernel(
    scores, target, class_weight, total_weight, pixel_weight, limits, seed, hard, cuts,
    losses, grad, partials, total_kept, flag,
    C, H, W, first_n, first_y, rows,
    s_n, s_c, s_h, s_w, t_n, t_h, t_w, g_n, g_c, g_h, g_w,
    ignore_index, sampling_cell, smoothing, divisor,
    BLOCK: tl.constexpr, GRAD: tl.constexpr, MAP: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr,
    PIXEL_WEIGHT: tl.constexpr, SAMPLING: tl.constexpr, HARD: tl.constexpr, KNOWN: tl.constexpr,
):  # fmt: skip
    """Loss and gradient of ``rows`` rows of full-size scores from row ``first_y`` on.

    The gradient is divided by ``divisor`` or, where that is not KNOWN, by the sum of the weights at ``total_kept``.
    Reads the scores three times (twice from the caches) and writes the gradient once: memory bounds it. Two
    exponentials per pixel and class.
    """
    image, row, X, inside, place, kind, found, pointer = _read_pixels(
        target, limits, seed, hard, cuts, first_n, first_y, rows, t_n, t_h, t_w, H, W, C, ignore_index, sampling_cell,
        BLOCK, SAMPLING, HARD,
    )  # fmt: skip
    wrong = found == C
    if tl.max(wrong.to(tl.int32), 0) != 0:
        report_label(flag, tl.load(pointer, mask=inside, other=ignore_index), place, wrong)
    weights = (class_weight, total_weight, pixel_weight, smoothing)
    counts = is_class(kind, C)
    factor = pixel_factor(kind, C, weights, place, WEIGHTED, SMOOTH, PIXEL_WEIGHT)
    scale = tl.where(counts, 1.0, 0.0)
    if PIXEL_WEIGHT:
        scale = tl.load(pixel_weight + place, mask=counts, other=0.0)
    reduction = 1.0 / divisor
    if not KNOWN:
        kept = tl.load(total_kept)
        reduction = tl.where(kept > 0.0, 1.0 / kept, 0.0)
    image = image.to(tl.int64)
    first = scores + image * s_n + row.to(tl.int64) * s_h + X.to(tl.int64) * s_w
    own = grad + image * g_n + row.to(tl.int64) * g_h + X.to(tl.int64) * g_w

    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    at = first
    for _ in range(C):
        largest = tl.maximum(largest, tl.load(at, mask=counts, other=0.0).to(tl.float32))
        at += s_c
    total = tl.zeros((BLOCK,), tl.float32)
    at = first
    for _ in range(C):
        total += tl.exp2((tl.load(at, mask=counts, other=0.0).to(tl.float32) - largest) * LOG2_E)
        at += s_c
    loss = tl.where(counts, factor * log2(total), 0.0)
    share = divide(factor, total)
    at = first
    weight = tl.zeros((BLOCK,), tl.float32)
    for c in range(C):
        less = tl.load(at, mask=counts, other=0.0).to(tl.float32) - largest
        at += s_c
        class_weight_here, of_target, of_all = class_factors(c, C, weights, WEIGHTED, SMOOTH)
        aimed = tl.where(kind == c, of_target, 0.0)
        weight += tl.where(kind == c, class_weight_here, 0.0)
        if SMOOTH:
            aimed += tl.where(counts, of_all, 0.0)
        loss -= tl.where(aimed != 0.0, aimed * scale * (less * LOG2_E), 0.0)
        if GRAD:
            value = (share * tl.exp2(less * LOG2_E) - aimed * scale) * reduction
            tl.store(own, tl.where(counts, value, 0.0), mask=inside)
            own += g_c
    if MAP:
        tl.store(losses + place, loss * LN_2, mask=inside)
    program, programs = tl.program_id(0), tl.num_programs(0)
    is_wrong = tl.max(wrong.to(tl.int32), 0) != 0
    tl.store(partials + program, tl.where(is_wrong, float("nan"), tl.sum(loss, 0) * LN_2))
    tl.store(partials + programs + program, tl.sum(weight * scale, 0))
    tl.store(partials + 2 * programs + program, tl.sum(counts.to(tl.float32), 0))


@triton.jit(do_not_specialize=["H"])
def _sum_weights_kernel(
    target, class_weight, total_weight, pixel_weight, limits, seed, hard, cuts, partials,
    C, H, W, t_n, t_h, t_w, ignore_index, sampling_cell,
    BLOCK: tl.constexpr, WEIGHTED: tl.constexpr, PIXEL_WEIGHT: tl.constexpr, SAMPLING: tl.constexpr,
    HARD: tl.constexpr,
):  # fmt: skip
    """The weights of the pixels that count, summed by program; bound by reading the label map."""
    image, row, X, inside, place, kind, found, pointer = _read_pixels(
        target, limits, seed, hard, cuts, 0, 0, H, t_n, t_h, t_w, H, W, C, ignore_index, sampling_cell,
        BLOCK, SAMPLING, HARD,
    )  # fmt: skip
    weights = (class_weight, total_weight, pixel_weight, 0.0)
    weight = pixel_factor(kind, C, weights, place, WEIGHTED, False, PIXEL_WEIGHT)
    tl.store(partials + tl.program_id(0), tl.sum(weight, 0))


@triton.jit(do_not_specialize=["H"])
def _count_correct_kernel(
    predicted, target, limits, seed, hard, cuts, partials, C, H, W, t_n, t_h, t_w, ignore_index, sampling_cell,
    BLOCK: tl.constexpr, SAMPLING: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    """Number of pixels that count and whose label is the one predicted; bound by reading both label maps."""
    image, row, X, inside, place, kind, found, pointer = _read_pixels(
        target, limits, seed, hard, cuts, 0, 0, H, t_n, t_h, t_w, H, W, C, ignore_index, sampling_cell,
        BLOCK, SAMPLING, HARD,
    )  # fmt: skip
    label = tl.load(predicted + place, mask=inside, other=0).to(tl.int32)
    correct = inside & is_class(kind, C) & (label == kind)
    tl.store(partials + tl.program_id(0), tl.sum(correct.to(tl.int32), 0))
