"""Kernels of `upsample_argmax`: points, then decided cells, then the others; and the confidence of the labels."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._argmax_cells import (
    CELL_SIZES,
    LABEL,
    SCORE_STRIDES,
    append_undecided,
    blend,
    cell_code,
    code_of,
    column_labels,
    corner_points,
    corner_weights,
    load_corners,
)
from fcnkern.backends.triton._math import LOG2_E

CLASS_GROUP = tl.constexpr(4)
"""Classes of a point that are loaded at once: enough loads in flight to hide their latency."""


@triton.jit
def _take(best, label, least, score, class_index):
    better = ~(score <= best) & (best == best)
    return tl.where(better, score, best), tl.where(better, class_index, label), tl.minimum(least, score)


@triton.jit
def _larger(best_a, label_a, least_a, best_b, label_b, least_b):
    nan_a, nan_b = best_a != best_a, best_b != best_b
    tie = (nan_a & nan_b) | (best_a == best_b)
    take_b = tl.where(tie, label_b < label_a, ~nan_a & (nan_b | (best_b > best_a)))
    best, label = tl.where(take_b, best_b, best_a), tl.where(take_b, label_b, label_a)
    return best, label, tl.minimum(least_a, least_b)


@triton.jit(do_not_specialize=["points", "w"])
def _upsample_argmax_points_fwd_kernel(
    scores, result, counter, points, w, classes, stride_n, stride_c, stride_y, stride_x,
    LABELS: tl.constexpr, SKIP_ZERO: tl.constexpr, FLAT: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The code of each source point (with LABELS: its label), int32 N×h×w; sets ``counter`` to 0 for the next kernel.

    SPLIT neighbouring lanes share a point, so that loads of channels_last scores are contiguous too. FLAT: rows
    follow each other without a gap. Reads every score once; bound by that.
    """
    BLOCK_POINTS: tl.constexpr = BLOCK // SPLIT
    blocks = tl.cdiv(points, BLOCK_POINTS)
    image = tl.program_id(0) // blocks
    first_point = tl.program_id(0) % blocks * BLOCK_POINTS
    lane = tl.arange(0, BLOCK)
    point = tl.minimum(first_point + lane // SPLIT, points - 1)
    place = scores + image.to(tl.int64) * stride_n
    if FLAT:
        place += point.to(tl.int64) * stride_x
    else:
        place += (point // w).to(tl.int64) * stride_y + (point % w).to(tl.int64) * stride_x
    own = lane % SPLIT
    place += own.to(tl.int64) * stride_c
    step = tl.cast(stride_c, tl.int64) * SPLIT
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    label, least = own, tl.full((BLOCK,), float("inf"), tl.float32)
    whole = classes // (SPLIT * CLASS_GROUP) * (SPLIT * CLASS_GROUP)
    for first in range(0, whole, SPLIT * CLASS_GROUP):
        group = ()
        for _ in tl.static_range(CLASS_GROUP):
            group = group + (tl.load(place).to(tl.float32),)
            place += step
        for i in tl.static_range(CLASS_GROUP):
            best, label, least = _take(best, label, least, group[i], own + (first + i * SPLIT))
    for first in range(whole, classes, SPLIT):
        score = tl.load(place, own < classes - first, other=float("-inf")).to(tl.float32)
        place += step
        if SPLIT == 1:
            best, label, least = _take(best, label, least, score, own + first)
        else:
            given = tl.where(own < classes - first, score, best)
            best, label, least = _take(best, label, least, given, own + first)
    if SPLIT > 1:
        best = tl.reshape(best, (BLOCK_POINTS, SPLIT))
        label, least = tl.reshape(label, (BLOCK_POINTS, SPLIT)), tl.reshape(least, (BLOCK_POINTS, SPLIT))
        best, label, least = tl.reduce((best, label, least), 1, _larger)
    point = first_point + tl.arange(0, BLOCK_POINTS)
    place = result + image.to(tl.int64) * points + point
    if LABELS:
        tl.store(place, label.to(result.dtype.element_ty), point < points)
    else:
        tl.store(place, code_of(best, label, least, SKIP_ZERO), point < points)
        if tl.program_id(0) == 0:
            tl.store(counter, 0)


@triton.jit(do_not_specialize=["h", "w", "height", "rows", "parts"])
def _upsample_argmax_decided_fwd_kernel(
    codes, labels, entries, counter, first_y, counts_y, counts_x, point_x, h, w, height, width_units, rows,
    parts,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr,
    BLOCK: tl.constexpr, PART_BLOCK: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The labels of decided cells, N×H×W with W = width_units · UNIT, and the list of the others.

    A program takes GROUP rows of cell parts and BLOCK columns of outputs. It writes the outputs of undecided cells
    too, without meaning, so that all stores are whole and wide. Bound by those: codes are few and in the cache.
    """
    groups = tl.cdiv(rows, GROUP)
    image = tl.program_id(0) // groups
    first_row = tl.program_id(0) % groups * GROUP
    codes += image.to(tl.int64) * (h * w)
    first_part = tl.program_id(1) * PART_BLOCK
    tables = (entries, counter, counts_y, counts_x)
    append_undecided(
        codes, *tables, image, first_row, first_part, h, w, rows, parts, PARTS_Y, PARTS_X, ZERO, GROUP,
        PART_BLOCK,
    )  # fmt: skip
    width = width_units * UNIT
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = x < width
    cell_x = tl.load(point_x + x, inside, other=0) + 1
    before, after = corner_points(tl.minimum(tl.maximum(cell_x, 0), w), w, ZERO)
    for row in range(first_row, tl.minimum(first_row + GROUP, rows)):
        top, bottom = corner_points(row // PARTS_Y, h, ZERO)
        code, _ = cell_code(codes, top, bottom, before, after, w)
        label = (code & LABEL).to(labels.dtype.element_ty)
        place = labels + (image * height + tl.load(first_y + row)).to(tl.int64) * width + x
        for _ in range(tl.load(counts_y + row)):
            tl.store(place, label, inside)
            place += width


@triton.jit(do_not_specialize=CELL_SIZES, do_not_specialize_on_alignment=SCORE_STRIDES)
def _upsample_argmax_cells_fwd_kernel(
    scores, codes, labels, entries, counter, first_y, counts_y, start_y, first_x, counts_x, start_x,
    stride_n, stride_c, stride_y, stride_x, number, classes, h, w, height, width, rows, parts, step_y,
    step_x,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, ZERO: tl.constexpr, SKIP_ZERO: tl.constexpr,
    LISTED: tl.constexpr, LANES: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The labels of the listed cell parts (or of all ``number``), each output from all classes.

    A lane owns a column of at most 8 outputs, in registers: per class four loads, eight operations, then four
    instructions an output; a warp stores whole rows of parts. Programs stride over the list, whose length they read.
    Bound by instructions.
    """
    if LISTED:
        number = tl.load(counter)
    for block in range(tl.program_id(0), tl.cdiv(number, BLOCK // LANES), tl.num_programs(0)):
        image, y, x, outputs, label = column_labels(
            block, number, entries, scores, codes, first_y, counts_y, start_y, first_x, counts_x, start_x,
            stride_n, stride_c, stride_y, stride_x, classes, h, w, rows, parts, step_y, step_x,
            PARTS_Y, PARTS_X, ZERO, SKIP_ZERO, LISTED, LANES, OUTPUTS, BLOCK,
        )  # fmt: skip
        place = labels + (image * height + y).to(tl.int64) * width + x
        for r in tl.static_range(OUTPUTS):
            tl.store(place, label[r].to(labels.dtype.element_ty), r < outputs)
            place += width


@triton.jit
def _column_scores(
    scores, columns, vertical, EXACT: tl.constexpr, SKIP_ZERO: tl.constexpr, OUTPUTS: tl.constexpr
):
    """A tuple: the scores of one class at the outputs of a column; where they are finite without EXACT too."""
    high = blend(scores[0], columns[0], scores[1], columns[1], SKIP_ZERO & EXACT)
    low = blend(scores[2], columns[0], scores[3], columns[1], SKIP_ZERO & EXACT)
    start, step = high * vertical[0] + low * vertical[2], high * vertical[1] + low * vertical[3]
    result = ()
    for r in tl.static_range(OUTPUTS):
        if EXACT:
            above, below = vertical[0] + r * vertical[1], vertical[2] + r * vertical[3]
            result = result + (blend(high, above, low, below, SKIP_ZERO),)
        else:
            result = result + (start + r * step if r > 0 else start,)
    return result


@triton.jit
def _sum_exponentials(
    corners, labels, width, count, columns, vertical, stride_c, classes,
    EXACT: tl.constexpr, SKIP_ZERO: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """A tuple: for each output of a column, the sum over the classes of exp(score - score of its label).

    Without EXACT the columns' weights have the factor log2(e) in them.
    """
    best, total = (), ()
    for r in tl.static_range(OUTPUTS):
        label = tl.load(labels + r * width, r < count, other=0).to(tl.int64)
        of_label = load_corners(corners, label * stride_c)
        best = best + (_column_scores(of_label, columns, vertical, EXACT, SKIP_ZERO, OUTPUTS)[r],)
        total = total + (tl.zeros(count.shape, tl.float32),)
    offset = tl.cast(0, tl.int64)
    for _ in range(classes):
        column = _column_scores(load_corners(corners, offset), columns, vertical, EXACT, SKIP_ZERO, OUTPUTS)
        offset += stride_c
        sums = ()
        for r in tl.static_range(OUTPUTS):
            below = column[r] - best[r]
            sums = sums + (total[r] + tl.exp2(below * LOG2_E if EXACT else below),)
        total = sums
    return total


@triton.jit(do_not_specialize=["columns_in_all", "h", "w", "height", "rows"])
def _upsample_argmax_confidence_fwd_kernel(
    scores, labels, confidence, first_y, counts_y, start_y, point_x, fraction_x, stride_n, stride_c,
    stride_y, stride_x, columns_in_all, classes, h, w, height, width, rows, step_y,
    PARTS_Y: tl.constexpr, ZERO: tl.constexpr, SKIP_ZERO: tl.constexpr, INDEX: tl.constexpr,
    OUTPUTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The softmax probability of each output's label, fp32 N×H×W: 1 / sum of exp(score - score of the label).

    A lane owns a column of at most 8 outputs. One exponential an output and class, beside four other instructions;
    the four loads of a class serve the column. Bound by the exponentials (8 issue slots each). Where the sum is
    NaN, as it is near infinite or huge scores, it is formed again in the definition's own arithmetic.
    """
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    there = index < columns_in_all
    index = tl.minimum(index, columns_in_all - 1)
    line, x = (index // width).to(tl.int32), (index % width).to(tl.int32)
    image, row = line // rows, line % rows
    count = tl.where(there, tl.load(counts_y + row), 0)
    cell_y = row // PARTS_Y
    cell_x = tl.minimum(tl.maximum(tl.load(point_x + x) + 1, 0), w)
    top, bottom = corner_points(cell_y, h, ZERO)
    before, after = corner_points(cell_x, w, ZERO)
    vertical = corner_weights(cell_y, h, tl.load(start_y + row), step_y, ZERO)
    right = corner_weights(cell_x, w, tl.load(fraction_x + x), 0.0, ZERO)
    columns, scaled = (right[0], right[2]), (right[0] * LOG2_E, right[2] * LOG2_E)
    left = scores + image.to(tl.int64) * stride_n + before.to(tl.int64) * stride_x
    upper, lower = top.to(tl.int64) * stride_y, bottom.to(tl.int64) * stride_y
    across = (after - before).to(tl.int64) * stride_x
    corners = (left + upper, left + upper + across, left + lower, left + lower + across)
    place = (image * height + tl.load(first_y + row)).to(tl.int64) * width + x
    outputs = (corners, labels + place, width, count)
    total = _sum_exponentials(*outputs, scaled, vertical, stride_c, classes, False, SKIP_ZERO, OUTPUTS)
    broken = total[0] != total[0]
    for r in tl.static_range(1, OUTPUTS):
        broken |= total[r] != total[r]
    if tl.max(broken.to(tl.int32)) > 0:
        total = _sum_exponentials(*outputs, columns, vertical, stride_c, classes, True, SKIP_ZERO, OUTPUTS)
    for r in tl.static_range(OUTPUTS):
        tl.store(confidence + place + r * width, 1.0 / total[r], r < count)
