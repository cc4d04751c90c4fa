"""Kernels of `confusion_matrix`: counts of (truth, prediction) from label maps and from scores."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._argmax_cells import (
    CELL_SIZES,
    LABEL,
    SCORE_STRIDES,
    append_undecided,
    cell_code,
    column_labels,
    corner_points,
)
from fcnkern.backends.triton._pixels import report_label

LOG_RUN = tl.constexpr(4)
RUN = tl.constexpr(16)
"""Successive pixels of a lane: 16 bytes of uint8 labels, one load."""
_TARGET_STRIDES = ("target_n", "target_y", "target_x")


@triton.jit
def _add(counts, bin_index, number, mask):
    """Integer addition: the result does not depend on the order."""
    tl.atomic_add(counts + bin_index, number.to(tl.int64), mask, sem="relaxed")


@triton.jit
def _extend(counts, run, begin, bin_index, position):
    """Takes each lane's next output: a run of equal bins that ends before ``position`` is added to the counts.

    Bins below 0 are no bins. A lane holds the bin of its run and where that began, relative to its present outputs.
    """
    ends = bin_index != run
    _add(counts, run, position - begin, ends & (run >= 0))
    return bin_index, tl.where(ends, position, begin)


@triton.jit
def _are_classes(truth, guess, classes):
    """Whether both of two labels, of any types, are classes."""
    return (tl.maximum(truth, guess) < classes) & (tl.minimum(truth, guess) >= 0)


@triton.jit
def _report(flag, index, label, mask):
    """Reports one of the labels out of range, where there is one; ``index`` is that of the pixel."""
    if tl.max(mask.to(tl.int32)) > 0:
        report_label(flag, label, index.to(tl.int64), mask)


@triton.jit
def _copy_of(counts, classes, copies):
    """This program's copy of the matrix: programs that run together seldom share one."""
    return counts + (tl.program_id(0) % copies).to(tl.int64) * classes * classes


@triton.jit
def _places(labels, index, height, width, stride_n, stride_y, stride_x, FLAT: tl.constexpr):
    """Addresses of pixels by their index in a contiguous map."""
    if FLAT:
        return labels + index
    line, x = index // width, index % width
    place = labels + (line // height).to(tl.int64) * stride_n
    return place + (line % height).to(tl.int64) * stride_y + x.to(tl.int64) * stride_x


@triton.jit
def _columns(tile, BLOCK: tl.constexpr):
    """The RUN columns of a BLOCK × RUN tile as a tuple; a lane's own elements, none moves."""
    parts = (tile,)
    for level in tl.static_range(LOG_RUN):
        halves = ()
        for i in tl.static_range(1 << level):
            if level + 1 < LOG_RUN:
                pair = tl.reshape(parts[i], (BLOCK, 2, RUN >> (level + 1)))
                low, high = tl.split(tl.permute(pair, (0, 2, 1)))
            else:
                low, high = tl.split(parts[i])
            halves = halves + (low, high)
        parts = halves
    return parts


@triton.jit(do_not_specialize=["height"])
def _confusion_matrix_labels_fwd_kernel(
    prediction, target, counts, prediction_flag, target_flag, pixels, span, height, width, prediction_n,
    prediction_y, prediction_x, target_n, target_y, target_x, classes, ignore_index, copies,
    IGNORES: tl.constexpr, FLAT_PREDICTION: tl.constexpr, FLAT_TARGET: tl.constexpr, INDEX: tl.constexpr,
    BIN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the pairs of ``span`` successive pixels a program to a copy of the matrix, int64 copies × C × C.

    A lane reads RUN successive pixels of both maps at a time and adds once for each run of equal pairs, across
    tiles too. Reads both maps once; bound by that, with about a dozen instructions a pixel beside.
    """
    counts = _copy_of(counts, classes, copies)
    prediction_strides = (height, width, prediction_n, prediction_y, prediction_x)
    target_strides = (height, width, target_n, target_y, target_x)
    begin = tl.program_id(0).to(INDEX) * span
    lane = tl.arange(0, BLOCK) * RUN
    run, began = tl.full((BLOCK,), -1, BIN), tl.zeros((BLOCK,), tl.int32)
    wrong = tl.full((BLOCK,), -1, INDEX)
    for first in range(begin, tl.minimum(begin + span, pixels), BLOCK * RUN):
        index = first + lane[:, None] + tl.arange(0, RUN)[None, :]
        exists = index < pixels
        missing = ignore_index if IGNORES else 0
        truth = tl.load(_places(target, index, *target_strides, FLAT_TARGET), exists, other=missing)
        guess = tl.load(_places(prediction, index, *prediction_strides, FLAT_PREDICTION), exists, other=0)
        bins = truth.to(BIN) * classes + guess.to(BIN)
        bins = tl.where(_are_classes(truth, guess, classes), bins, -2)
        bins = tl.where(truth == ignore_index if IGNORES else ~exists, -1, bins)
        columns = _columns(bins, BLOCK)
        least = columns[0]
        for i in tl.static_range(RUN):
            run, began = _extend(counts, run, began, columns[i], i)
            least = tl.minimum(least, columns[i])
        wrong = tl.where(least < -1, first + lane, wrong)
        began -= RUN
    _add(counts, run, -began, run >= 0)
    if tl.max(wrong) >= 0:
        for i in range(RUN):
            index = tl.maximum(wrong, 0) + i
            exists = (wrong >= 0) & (index < pixels)
            truth = tl.load(_places(target, index, *target_strides, FLAT_TARGET), exists, other=0)
            guess = tl.load(_places(prediction, index, *prediction_strides, FLAT_PREDICTION), exists, other=0)
            if IGNORES:
                exists &= truth != ignore_index
            _report(target_flag, index, truth, exists & ~_are_classes(truth, truth, classes))
            _report(prediction_flag, index, guess, exists & ~_are_classes(guess, guess, classes))


@triton.jit(
    do_not_specialize=["h", "w", "height", "width", "rows", "parts"],
    do_not_specialize_on_alignment=_TARGET_STRIDES,
)
def _confusion_matrix_decided_fwd_kernel(
    codes, target, counts, entries, counter, target_flag, first_y, counts_y, counts_x, point_x, h, w, height,
    width, target_n, target_y, target_x, rows, parts, classes, ignore_index, copies,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, ZERO: tl.constexpr, IGNORES: tl.constexpr,
    BIN: tl.constexpr, OUTPUTS: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
    PART_BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the outputs of decided cells to a copy of the matrix, and lists the other cells.

    A lane walks down a column of outputs through GROUP rows of cell parts and adds once for each run of equal
    pairs; where no column of the warp has a new pair in a row of parts, only labels are read and compared. Bound by
    that on typical maps, else by instructions.
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
    counts = _copy_of(counts, classes, copies)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = x < width
    cell_x = tl.load(point_x + x, inside, other=0) + 1
    before, after = corner_points(tl.minimum(tl.maximum(cell_x, 0), w), w, ZERO)
    target += image.to(tl.int64) * target_n + tl.minimum(x, width - 1).to(tl.int64) * target_x
    run, began = tl.full((BLOCK,), -1, BIN), tl.zeros((BLOCK,), tl.int32)
    wrong = tl.full((BLOCK,), -1, tl.int32)
    for row in range(first_row, tl.minimum(first_row + GROUP, rows)):
        top, bottom = corner_points(row // PARTS_Y, h, ZERO)
        code, decided = cell_code(codes, top, bottom, before, after, w)
        y, count = tl.load(first_y + row), tl.load(counts_y + row)
        if count > 0:
            taken = _load_column(target + y.to(tl.int64) * target_y, target_y, count, OUTPUTS)
            outputs, label = tl.where(inside & decided, count, 0), code & LABEL
            if tl.max((_uniform_bin(taken, label, outputs, classes, BIN, OUTPUTS) != run).to(tl.int32)) > 0:
                for r in tl.static_range(OUTPUTS):
                    exists = r < outputs
                    bins, wrong_here = _bins(taken[r], label, exists, classes, ignore_index, IGNORES, BIN)
                    wrong = tl.where(wrong_here, y + r, wrong)
                    run, began = _extend(counts, run, began, bins, r)
            began -= OUTPUTS
    _add(counts, run, -began, run >= 0)
    _report_rows(target_flag, target, target_y, wrong, image, x, height, width)


@triton.jit
def _uniform_bin(taken, label, outputs, classes, BIN: tl.constexpr, OUTPUTS: tl.constexpr):
    """The bin that all OUTPUTS outputs of a column have, -1 for a column of none, and otherwise -2.

    A label that is no class has no bin: what it would give may be that of another, or -1.
    """
    least, most = taken[0], taken[0]
    for r in tl.static_range(1, OUTPUTS):
        least, most = tl.minimum(least, taken[r]), tl.maximum(most, taken[r])
    whole = (outputs == OUTPUTS) & (least == most) & _are_classes(least, most, classes)
    return tl.where(whole, least.to(BIN) * classes + label, tl.where(outputs == 0, -1, -2))


@triton.jit
def _bins(truth, label, exists, classes, ignore_index, IGNORES: tl.constexpr, BIN: tl.constexpr):
    """Bins of outputs, -1 where they do not count; and where the truth is no class but should be."""
    counted = exists & (truth != ignore_index) if IGNORES else exists
    valid = counted & (truth >= 0) & (truth < classes)
    return tl.where(valid, truth.to(BIN) * classes + label, -1), counted & ~valid


@triton.jit
def _load_column(target, stride_y, count, OUTPUTS: tl.constexpr):
    """A tuple: the labels of OUTPUTS rows (the last of ``count`` again past the end), all in flight at once."""
    labels = ()
    for r in tl.static_range(OUTPUTS):
        labels = labels + (tl.load(target),)
        target += tl.where(r + 1 < count, stride_y, 0)
    return labels


@triton.jit
def _report_rows(flag, target, stride_y, wrong, image, x, height, width):
    """Reports the label in row ``wrong`` (none where -1) of each lane's column, which starts at ``target``."""
    if tl.max(wrong) >= 0:
        found = wrong >= 0
        label = tl.load(target + wrong.to(tl.int64) * stride_y, found, other=0)
        _report(flag, (image.to(tl.int64) * height + wrong) * width + x, label, found)


@triton.jit(do_not_specialize=CELL_SIZES, do_not_specialize_on_alignment=[*SCORE_STRIDES, *_TARGET_STRIDES])
def _confusion_matrix_cells_fwd_kernel(
    scores, codes, target, counts, entries, counter, target_flag, first_y, counts_y, start_y, first_x,
    counts_x, start_x, stride_n, stride_c, stride_y, stride_x, target_n, target_y, target_x, number, classes,
    h, w, height, width, rows, parts, step_y, step_x, ignore_index, copies,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, ZERO: tl.constexpr, SKIP_ZERO: tl.constexpr,
    IGNORES: tl.constexpr, BIN: tl.constexpr, LISTED: tl.constexpr, LANES: tl.constexpr,
    OUTPUTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the outputs of the listed cell parts (or of all ``number``) to a copy of the matrix.

    As `_upsample_argmax_cells_fwd_kernel`, with an addition for each run of equal pairs in a column in the place
    of the store. Bound by instructions.
    """
    counts = _copy_of(counts, classes, copies)
    if LISTED:
        number = tl.load(counter)
    for block in range(tl.program_id(0), tl.cdiv(number, BLOCK // LANES), tl.num_programs(0)):
        image, y, x, outputs, label = column_labels(
            block, number, entries, scores, codes, first_y, counts_y, start_y, first_x, counts_x, start_x,
            stride_n, stride_c, stride_y, stride_x, classes, h, w, rows, parts, step_y, step_x,
            PARTS_Y, PARTS_X, ZERO, SKIP_ZERO, LISTED, LANES, OUTPUTS, BLOCK,
        )  # fmt: skip
        column = target + image.to(tl.int64) * target_n + tl.minimum(x, width - 1).to(tl.int64) * target_x
        first = tl.minimum(y, height - 1).to(tl.int64)  # a part without outputs may lie below the map
        taken = _load_column(column + first * target_y, target_y, tl.maximum(outputs, 1), OUTPUTS)
        run, began = tl.full((BLOCK,), -1, BIN), tl.zeros((BLOCK,), tl.int32)
        wrong = tl.full((BLOCK,), -1, tl.int32)
        for r in tl.static_range(OUTPUTS):
            bins, wrong_here = _bins(taken[r], label[r], r < outputs, classes, ignore_index, IGNORES, BIN)
            wrong = tl.where(wrong_here, y + r, wrong)
            run, began = _extend(counts, run, began, bins, r)
        _add(counts, run, OUTPUTS - began, run >= 0)
        _report_rows(target_flag, column, target_y, wrong, image, x, height, width)
