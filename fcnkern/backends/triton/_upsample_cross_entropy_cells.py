"""The fused loss, one lane per cell of low-resolution scores.

A cell is the part of the output between four neighbouring scores: at most 8 × 8 pixels (a larger one is cut into
parts). A program is one warp: 32 cells side by side, counted over the images (so that no lane idles at the end of a
row), and it walks down a band of cell rows. For each row of cells it

1. reads the labels; counts for each class and cell the labels with their rows and columns (four sums packed into one
   word of private scratch), and marks the pixels that do not count;
2. sums the exponentials of all classes for the cell's pixels, which stay in registers whatever the number of classes;
3. takes logarithms for the loss and reciprocals for the gradient;
4. goes over the classes again for the moments of the probabilities, less those of the labels: they are the
   gradients of the four corners. Neighbouring lanes exchange the shares of common points; what crosses a border of
   programs goes to strips, which the finishing kernel adds in a fixed order.

Cells with steep or non-finite scores take `add_steep_cells` in place of the geometric sequences of 2 and 4.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._cell_labels import (
    COLUMN,
    NUMBER,
    ROW,
    add_run,
    add_weight,
    coarse_words,
    pixel_class,
    report_rows,
    take_counts,
    unpack,
)
from fcnkern.backends.triton._geometric import (
    add_exponentials,
    bilinear,
    corner_scores,
    largest_jump,
    moments,
    next_scores,
    point_maxima,
)
from fcnkern.backends.triton._loss_pixels import (
    INFINITY,
    class_factors,
    empty_sums,
    finish_equal_pixels,
    finish_weighted_pixels,
    store_losses,
)
from fcnkern.backends.triton._math import LN_2
from fcnkern.backends.triton._pixels import is_class
from fcnkern.backends.triton._shares import (
    border_weights,
    next_class,
    shares_of_moments,
    store_nothing,
    store_shares,
)
from fcnkern.backends.triton._upsample_cross_entropy_steep import add_steep_cells


@triton.jit
def _read_labels(
    counts, pixels, words, weights, n, first_y, count_y, first_x, count_x, C, ignore_index, cell,
    LANES: tl.constexpr, COLUMNS: tl.constexpr, SAMPLING: tl.constexpr, COARSE: tl.constexpr, HARD: tl.constexpr,
    SMOOTH: tl.constexpr, PIXEL_WEIGHT: tl.constexpr,
):  # fmt: skip
    """Counts the labels; a bit per pixel tells whether it counts.

    Also: the largest class met, and the sums (number, row, column, both) over all pixels that count.
    """
    kept = tl.zeros_like(first_x).to(tl.int64)
    worst = tl.zeros_like(first_x)
    word = worst
    number, by_row, by_column, by_both = (
        worst.to(tl.float32), worst.to(tl.float32), worst.to(tl.float32), worst.to(tl.float32)
    )  # fmt: skip
    row = pixels[0] + first_y.to(tl.int64) * pixels[5] + first_x.to(tl.int64) * pixels[6]
    run_kind = worst - 1
    run = worst
    for v in range(count_y):
        pointer = row
        bits = tl.zeros_like(first_x)
        for r in range(COLUMNS):
            kind, found = pixel_class(
                pixels, pointer, words, n, first_y + v, first_x + r, r < count_x, C, ignore_index, cell,
                SAMPLING, COARSE, HARD,
            )  # fmt: skip
            worst = tl.maximum(worst, found)
            bits += tl.where(is_class(kind, C), 1 << r, 0)
            pointer += pixels[6]
            one = NUMBER + v * ROW + r * COLUMN + r * v
            if PIXEL_WEIGHT:
                place = (n.to(tl.int64) * pixels[7] + first_y + v) * pixels[8] + first_x + r
                u = tl.load(weights[2] + place, mask=is_class(kind, C), other=0.0)
                number += u
                by_row += v * u
                by_column += r * u
                by_both += (v * r) * u
                add_weight(counts, kind, u, v, r, C, LANES)
            else:
                ends = kind != run_kind
                add_run(counts, run_kind, run, ends, LANES)
                run = tl.where(ends, 0, run) + one
                run_kind = kind
                if SMOOTH:
                    word += tl.where(is_class(kind, C), one, 0)
        row += pixels[5]
        kept |= bits.to(tl.int64) << (v * COLUMNS)
    if not PIXEL_WEIGHT:
        add_run(counts, run_kind, run, run != 0, LANES)
    whole = (number, by_row, by_column, by_both)
    if SMOOTH and not PIXEL_WEIGHT:
        whole = unpack(word)
    return kept, worst, whole


@triton.jit
def _target_loss(score, found, whole, of_target, of_all, SMOOTH: tl.constexpr):
    """The class's scores at its labels (and, smoothed, at all pixels), weighted and summed, in binary orders."""
    z, dz, gz, dg = score
    total = of_target * (found[0] * z + found[1] * gz + found[2] * dz + found[3] * dg)
    if SMOOTH:
        total += of_all * (whole[0] * z + whole[1] * gz + whole[2] * dz + whole[3] * dg)
    return total


@triton.jit
def _class_moments(
    factors, score, found, whole, of_target, of_all,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DOUBLINGS: tl.constexpr, SMOOTH: tl.constexpr,
):  # fmt: skip
    """Moments, with rows and columns counted from 1, of the gradient of the class's scores at the pixels."""
    plain, by_row, by_column, by_both = moments(factors, score, ROWS, COLUMNS, DOUBLINGS)
    number, row, column, both = (
        of_target * found[0], of_target * found[1], of_target * found[2], of_target * found[3]
    )  # fmt: skip
    if SMOOTH:
        number += of_all * whole[0]
        row += of_all * whole[1]
        column += of_all * whole[2]
        both += of_all * whole[3]
    return (
        plain - number,
        by_row - (number + row),
        by_column - (number + column),
        by_both - ((number + row) + (column + both)),
    )


@triton.jit
def _fast_sums(
    kept, weights, scores, corners, exist, maxima, cell, C, stride_c,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DOUBLINGS: tl.constexpr, ZERO: tl.constexpr, WEIGHTED: tl.constexpr,
    SMOOTH_MAP: tl.constexpr,
):  # fmt: skip
    """Sums of exponentials of all pixels, and whether they may be used (as the largest jump between corners).

    For a smoothed map also the scores of all classes, weighted for smoothing and summed.
    """
    sums = empty_sums(kept, ROWS, COLUMNS)
    jump = tl.zeros_like(maxima[0])
    z, dz, gz, dg = (jump, jump, jump, jump)
    for corner in tl.static_range(4):
        jump = tl.where(tl.abs(maxima[corner]) < INFINITY, jump, INFINITY)
    for c in range(C):
        values = corner_scores(scores, corners, exist, maxima, ZERO)
        corners = next_scores(corners, stride_c)
        jump = largest_jump(jump, values)
        score = bilinear(values, cell[0], cell[1], cell[2], cell[3])
        sums = add_exponentials(sums, score, ROWS, COLUMNS, DOUBLINGS)
        if SMOOTH_MAP:
            of_all = class_factors(c, C, weights, WEIGHTED, True)[2]
            z += of_all * score[0]
            dz += of_all * score[1]
            gz += of_all * score[2]
            dg += of_all * score[3]
    return sums, jump, (z, dz, gz, dg)


@triton.jit
def _class_loop(
    totals, factors, whole, counts, weights, scores, corners, exist, maxima, cell, y_weights, x_weights,
    places, offsets, steps, stores, adds, C, stride_c,
    LANES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr, DOUBLINGS: tl.constexpr,
    ZERO: tl.constexpr, GRAD: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr, PIXEL_WEIGHT: tl.constexpr,
):  # fmt: skip
    """The labels' part of the loss, and the gradient. ``totals``: loss, weight and number of pixels so far."""
    loss, weight, number = totals
    for c in range(C):
        score = bilinear(
            corner_scores(scores, corners, exist, maxima, ZERO), cell[0], cell[1], cell[2], cell[3]
        )
        corners = next_scores(corners, stride_c)
        found = take_counts(counts, C, LANES, PIXEL_WEIGHT)
        counts += LANES
        class_weight, of_target, of_all = class_factors(c, C, weights, WEIGHTED, SMOOTH)
        loss -= _target_loss(score, found, whole, of_target, of_all, SMOOTH)
        weight += class_weight * found[0]
        number += found[0]
        if GRAD:
            by = _class_moments(
                factors, score, found, whole, of_target, of_all, ROWS, COLUMNS, DOUBLINGS, SMOOTH
            )
            shares = shares_of_moments(by[0], by[1], by[2], by[3], y_weights, x_weights)
            pointers = (places[0] + offsets[0], places[1] + offsets[1], places[2] + offsets[2])
            store_shares(shares, pointers, stores, adds, LANES, PARTS, False)
            places = next_class(places, steps)
    return loss, weight, number


@triton.jit
def _skip_cells(
    totals, counts, weights, pointers, steps, stores, adds, C,
    LANES: tl.constexpr, GRAD: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTH: tl.constexpr, PIXEL_WEIGHT: tl.constexpr,
):  # fmt: skip
    """Zeros in place of `_class_loop`'s gradient; takes the counts."""
    loss, weight, number = totals
    for c in range(C):
        found = take_counts(counts, C, LANES, PIXEL_WEIGHT)
        counts += LANES
        class_weight, of_target, of_all = class_factors(c, C, weights, WEIGHTED, SMOOTH)
        weight += class_weight * found[0]
        number += found[0]
        if GRAD:
            store_nothing(pointers, stores, adds)
            pointers = next_class(pointers, steps)
    return loss, weight, number


_SIZES = ["h", "w", "H", "W", "lanes", "columns", "x_begin", "y_begin", "rows", "band"]
_STRIDES = ["s_n", "s_c", "s_h", "s_w", "t_n", "t_h", "t_w", "g_n", "g_c", "g_h", "g_w"]
"""Their alignment makes no access wider: a lane takes single elements."""


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_STRIDES)
def _upsample_cross_entropy_cells_kernel(
    scores, target, counts, class_weight, total_weight, pixel_weight, limits, seed, hard, cuts,
    losses, grad, seam, rim, partials, flag,
    y_first, y_counts, y_start, x_first, x_counts, x_start,
    C, h, w, H, W, lanes, columns, x_begin, y_begin, rows, band,
    s_n, s_c, s_h, s_w, t_n, t_h, t_w, g_n, g_c, g_h, g_w,
    step_y, step_x, steepest, ignore_index, sampling_cell, smoothing,
    LANES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ROW_PARTS: tl.constexpr, PARTS: tl.constexpr,
    DOUBLINGS: tl.constexpr, ZERO: tl.constexpr, GRAD: tl.constexpr, MAP: tl.constexpr, WEIGHTED: tl.constexpr,
    SMOOTH: tl.constexpr, PIXEL_WEIGHT: tl.constexpr, SAMPLING: tl.constexpr, COARSE: tl.constexpr,
    HARD: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Loss and gradient of one band of a strip of cells; see the module's text.

    Reads the labels once and the scores three times (the last two from the caches), writes the gradient of its
    points (twice; once to the caches), its seam (the top row of points, shared with the band above), its rim (the
    left column, shared with the strip to the left) and three partial sums. At 8 × 8 pixels a cell, per pixel and
    class: 9.5 instructions and 0.18 special functions by count; instruction issue bounds it. ``OFFSET`` is
    the integer type that holds every offset in scores and gradient.
    """
    strip, part_of_grid = tl.program_id(0), tl.program_id(1)
    program = (part_of_grid * tl.num_programs(0) + strip).to(tl.int64)
    stride_c = tl.cast(s_c, OFFSET)
    lane = tl.arange(0, LANES)
    f = strip * LANES + lane
    live = f < lanes
    f = tl.minimum(f, lanes - 1)
    n = f // columns
    x_part = x_begin * PARTS + f - n * columns
    x = x_part // PARTS
    first_x = tl.load(x_first + x_part)
    count_x = tl.where(live, tl.load(x_counts + x_part), 0)
    start_x = tl.load(x_start + x_part)
    has_left, has_right = x > 0, x < w
    x_weights = border_weights(start_x, step_x, has_left, has_right, ZERO)

    left = n.to(OFFSET) * s_n + tl.maximum(x - 1, 0).to(OFFSET) * s_w
    right = n.to(OFFSET) * s_n + tl.minimum(x, w - 1).to(OFFSET) * s_w
    own = n.to(OFFSET) * g_n + tl.minimum(x, w - 1).to(OFFSET) * g_w
    pixels = (target + n.to(tl.int64) * t_n, limits, seed, hard, cuts, t_h, t_w, H, W)
    weights = (class_weight, total_weight, pixel_weight, smoothing)
    own_counts = counts + (program * (C + 2) * (4 if PIXEL_WEIGHT else 1) + 1) * LANES + lane
    owner = live & has_right & (x_part % PARTS == 0)

    begin = part_of_grid * band * ROW_PARTS
    end = tl.minimum(begin + band * ROW_PARTS, rows)
    above = y_begin + begin // ROW_PARTS - 1
    top = tl.maximum(above, 0).to(OFFSET) * s_h
    m_left, m_right = point_maxima(scores, left + top, right + top, C, stride_c)
    if ZERO:
        m_left = m_left * tl.where(has_left & (above >= 0), 1.0, 0.0)
        m_right = m_right * tl.where(has_right & (above >= 0), 1.0, 0.0)
    m_top_left, m_top_right = m_left, m_right
    loss = tl.zeros_like(start_x)
    totals = (loss, loss, loss)
    wrong = 0
    for row in range(begin, end):
        y = y_begin + row // ROW_PARTS
        y_part = y_begin * ROW_PARTS + row
        first_y, count_y, start_y = (
            tl.load(y_first + y_part),
            tl.load(y_counts + y_part),
            tl.load(y_start + y_part),
        )
        has_top, has_bottom = y > 0, y < h
        top = tl.maximum(y - 1, 0).to(OFFSET) * s_h
        bottom = tl.minimum(y, h - 1).to(OFFSET) * s_h
        corners = (left + top, right + top, left + bottom, right + bottom)
        masks = (has_left & has_top, has_right & has_top, has_left & has_bottom, has_right & has_bottom)
        exist = (
            tl.where(masks[0], 1.0, 0.0), tl.where(masks[1], 1.0, 0.0),
            tl.where(masks[2], 1.0, 0.0), tl.where(masks[3], 1.0, 0.0),
        )  # fmt: skip
        if row % ROW_PARTS == 0:
            m_top_left, m_top_right = m_left, m_right
            m_left, m_right = point_maxima(scores, corners[2], corners[3], C, stride_c)
            if ZERO:
                m_left, m_right = m_left * exist[2], m_right * exist[3]
        maxima = (m_top_left, m_top_right, m_left, m_right)
        words = (0, 0, 0, 0, 0, 0)
        if COARSE:
            words = coarse_words(tl.load(seed), n, first_y, first_x, sampling_cell)
        kept, worst, whole = _read_labels(
            own_counts, pixels, words, weights, n, first_y, count_y, first_x, count_x, C, ignore_index, sampling_cell,
            LANES, COLUMNS, SAMPLING, COARSE, HARD, SMOOTH, PIXEL_WEIGHT,
        )  # fmt: skip
        if tl.max(worst, 0) == C:
            wrong = 1
            report_rows(
                flag, pixels[0], n, first_y, count_y, first_x, count_x, t_h, t_w, H, W, C, ignore_index
            )

        if ROW_PARTS == 1:
            is_seam = (row == begin) & (part_of_grid > 0)
        else:
            is_seam = (row < begin + ROW_PARTS) & (part_of_grid > 0)
        above_row = grad + tl.maximum(y - 1, 0).to(tl.int64) * g_h
        places = (
            tl.where(is_seam, seam + program * C * LANES, above_row),
            grad + tl.minimum(y, h - 1).to(tl.int64) * g_h,
            rim + (strip.to(tl.int64) * rows + row) * 2 * C,
        )  # fmt: skip
        offsets = (tl.where(is_seam, lane.to(OFFSET), own), own, lane * 0)
        pointers = (places[0] + offsets[0], places[1] + offsets[1], places[2] + offsets[2])
        steps = (tl.where(is_seam, tl.full((), LANES, OFFSET), tl.cast(g_c, OFFSET)), tl.cast(g_c, OFFSET), 2)
        stores = (owner & has_top, owner & has_bottom, lane == 0)
        adds = (row > begin, row % ROW_PARTS > 0)
        cell = (start_y, step_y, start_x, step_x)
        y_weights = border_weights(start_y, step_y, has_top, has_bottom, ZERO)
        usable = tl.max((kept != 0).to(tl.int32), 0)
        if usable != 0:
            sums, jump, smoothed = _fast_sums(
                kept, weights, scores, corners, exist, maxima, cell, C, stride_c,
                ROWS, COLUMNS, DOUBLINGS, ZERO, WEIGHTED, MAP and SMOOTH,
            )  # fmt: skip
            if tl.min((jump <= steepest).to(tl.int32), 0) == 0:
                usable = -1
            else:
                if MAP:
                    store_losses(
                        losses, sums, pixels, weights, scores, corners, exist, maxima, cell, smoothed, n, first_y,
                        first_x, C, stride_c, ignore_index, ROWS, COLUMNS, ZERO, WEIGHTED, SMOOTH,
                    )  # fmt: skip
                loss, weight, number = totals
                if WEIGHTED or PIXEL_WEIGHT:
                    loss, factors = finish_weighted_pixels(
                        sums, loss, pixels, weights, n, first_y, first_x, C, ignore_index,
                        ROWS, COLUMNS, WEIGHTED, SMOOTH, PIXEL_WEIGHT,
                    )  # fmt: skip
                else:
                    loss, factors = finish_equal_pixels(sums, loss, ROWS * COLUMNS)
                totals = _class_loop(
                    (loss, weight, number), factors, whole, own_counts, weights, scores, corners, exist, maxima, cell,
                    y_weights, x_weights, places, offsets, steps, stores, adds, C, stride_c,
                    LANES, ROWS, COLUMNS, PARTS, DOUBLINGS, ZERO, GRAD, WEIGHTED, SMOOTH, PIXEL_WEIGHT,
                )  # fmt: skip
        if usable <= 0:
            totals = _skip_cells(
                totals, own_counts, weights, pointers, steps, stores, adds, C,
                LANES, GRAD, WEIGHTED, SMOOTH, PIXEL_WEIGHT,
            )  # fmt: skip
        if usable < 0:
            if not ZERO:
                masks = (lane >= 0, lane >= 0, lane >= 0, lane >= 0)
            points = (scores + corners[0], scores + corners[1], scores + corners[2], scores + corners[3])
            steep = add_steep_cells(
                pixels, words, weights, losses, points, masks, cell,
                (has_left, has_right, has_top, has_bottom), first_y, count_y, first_x, count_x,
                pointers, steps, stores, n, C, stride_c, ignore_index, sampling_cell,
                LANES, COLUMNS, PARTS, ZERO, GRAD, MAP, WEIGHTED, SMOOTH, PIXEL_WEIGHT, SAMPLING, COARSE, HARD,
            )  # fmt: skip
            totals = (totals[0] + steep, totals[1], totals[2])
    programs = tl.num_programs(0) * tl.num_programs(1)
    total = tl.where(wrong != 0, float("nan"), tl.sum(totals[0], 0) * LN_2)
    tl.store(partials + program, total)
    tl.store(partials + programs + program, tl.sum(totals[1], 0))
    tl.store(partials + 2 * programs + program, tl.sum(totals[2], 0))
