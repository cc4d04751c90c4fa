"""Device functions of the label map's kernels: corners of cells, undecided cells, the winners of a cell's outputs.

A *code* is the argmax of one source point, in 16 bits, and two marks beside it. Scores are bilinear in a cell, so
a class that is the (lowest) argmax of all four corners is that of all outputs between them: the cell is decided.
Corners outside a zero border are 0 for every class and are left out.
"""

from __future__ import annotations

import triton
import triton.language as tl

LABEL = tl.constexpr(0xFFFF)
NOT_PLAIN = tl.constexpr(1 << 16)
"""Mark of a point with a NaN, an infinity or a huge score: differences of its scores mean nothing."""
HUGE = tl.constexpr(2.0**126)
UNDECIDABLE = tl.constexpr(1 << 17)
"""Mark of a point whose infinities or NaN can decide an output next to it, whatever the argmax."""
CHUNK = tl.constexpr(24)
"""Classes that are looked at together: a multiple of the lanes of a cell, few enough for the bits of a float."""

CELL_SIZES = ("number", "h", "w", "height", "width", "rows", "parts")
SCORE_STRIDES = ("stride_n", "stride_c", "stride_y", "stride_x")
"""Arguments of the kernels of undecided cells whose alignment makes no access wider: a lane takes single elements."""

PRUNED_OUTPUTS = tl.constexpr(4)
"""Outputs to a lane from which looking for classes that cannot win costs less than it saves."""


@triton.jit
def code_of(best, label, least, SKIP_ZERO: tl.constexpr):
    """The code of points with the largest score ``best`` (NaN is the largest), at ``label``, and the ``least``.

    Where a tap of weight 0 multiplies (not SKIP_ZERO), an infinite score of any class gives NaN, which wins.
    """
    plain = (best < HUGE) & (least > -HUGE)
    decidable = best < float("inf")
    if not SKIP_ZERO:
        decidable &= least > float("-inf")
    return label + tl.where(plain, 0, NOT_PLAIN) + tl.where(decidable, 0, UNDECIDABLE)


@triton.jit
def corner_points(cell, n_in, ZERO: tl.constexpr):
    """The points before and after a cell of an axis.

    A missing point is replaced by its neighbour; before the first point of a clamped axis, F.interpolate's taps are
    the first point and, with weight 0, the second.
    """
    return tl.maximum(cell - 1, 0), tl.minimum(tl.maximum(cell, 0 if ZERO else 1), n_in - 1)


@triton.jit
def corner_weights(cell, n_in, start, step, ZERO: tl.constexpr):
    """Weights of the points before and after a cell at its first output, each followed by its step."""
    if ZERO:
        has_before, has_after = cell >= 1, cell < n_in
        before, before_step = tl.where(has_before, 1 - start, 0.0), tl.where(has_before, -step, 0.0)
    else:
        has_after = (cell >= 1) & (cell < n_in)
        before, before_step = tl.where(has_after, 1 - start, 1.0), tl.where(has_after, -step, 0.0)
    return before, before_step, tl.where(has_after, start, 0.0), tl.where(has_after, step, 0.0)


@triton.jit
def cell_code(codes, top, bottom, before, after, w):
    """The code of one corner of each cell, and whether the cell is decided: all corners have that code."""
    code = tl.load(codes + top * w + before)
    same = code == tl.load(codes + top * w + after)
    same &= code == tl.load(codes + bottom * w + before)
    same &= code == tl.load(codes + bottom * w + after)
    return code, same & (code < UNDECIDABLE)


@triton.jit
def append_undecided(
    codes,  # of the image
    entries,
    counter,
    counts_y,
    counts_x,
    image,
    first_row,
    first_part,
    h,
    w,
    rows,
    parts,
    PARTS_Y: tl.constexpr,
    PARTS_X: tl.constexpr,
    ZERO: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Appends the undecided cell parts among GROUP rows × BLOCK parts to ``entries``; one atomic addition.

    An entry is (image · rows + row) · 2^32 + part. The order of the list depends on scheduling.
    """
    i = tl.arange(0, GROUP * BLOCK)
    row, part = first_row + i // BLOCK, first_part + i % BLOCK
    inside = (row < rows) & (part < parts)
    inside &= (tl.load(counts_y + row, inside, other=0) > 0) & (tl.load(counts_x + part, inside, other=0) > 0)
    top, bottom = corner_points(tl.minimum(row, rows - 1) // PARTS_Y, h, ZERO)
    before, after = corner_points(tl.minimum(part, parts - 1) // PARTS_X, w, ZERO)
    _, decided = cell_code(codes, top, bottom, before, after, w)
    undecided = inside & ~decided
    chosen = undecided.to(tl.int32)
    number = tl.sum(chosen)
    if number > 0:
        place = tl.atomic_add(counter, number, sem="relaxed") + tl.cumsum(chosen) - 1
        entry = ((image * rows + row).to(tl.int64) << 32) | part
        tl.store(entries + place, entry, undecided)


@triton.jit
def column_labels(
    block, number, entries, scores, codes, first_y, counts_y, start_y, first_x, counts_x, start_x,
    stride_n, stride_c, stride_y, stride_x, classes, h, w, rows, parts, step_y, step_x,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, ZERO: tl.constexpr, SKIP_ZERO: tl.constexpr,
    LISTED: tl.constexpr, LANES: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The lanes of block ``block`` of the ``number`` cell parts, each on a column of outputs, and their labels.

    Returns image, the first output (y, x), the number of outputs below, and the tuple of OUTPUTS labels.
    """
    image, row, part, slot, y, x, outputs = _place_lanes(
        block, number, entries, first_y, counts_y, first_x, counts_x, rows, parts, LISTED, LANES, BLOCK
    )
    labels = _winners(
        scores, codes, image, row, part, slot, start_y, start_x, stride_n, stride_c, stride_y, stride_x,
        classes, h, w, step_y, step_x, PARTS_Y, PARTS_X, ZERO, SKIP_ZERO, LISTED, LANES, OUTPUTS,
    )  # fmt: skip
    return image, y, x, outputs, labels


@triton.jit
def _place_lanes(
    block, number, entries, first_y, counts_y, first_x, counts_x, rows, parts,
    LISTED: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK lanes on cell parts, LANES to a part, a lane to a column of outputs.

    Returns image, row of parts, part and slot in the part, the first output (y, x) and the number of outputs below.
    """
    lane = tl.arange(0, BLOCK)
    item = block * (BLOCK // LANES) + lane // LANES
    slot = lane % LANES
    there = item < number
    item = tl.minimum(item, number - 1)
    if LISTED:
        entry = tl.load(entries + item)
        line, part = (entry >> 32).to(tl.int32), entry.to(tl.int32)
    else:
        line, part = item // parts, item % parts
    image, row = line // rows, line % rows
    there &= slot < tl.load(counts_x + part)
    outputs = tl.where(there, tl.load(counts_y + row), 0)
    return image, row, part, slot, tl.load(first_y + row), tl.load(first_x + part) + slot, outputs


@triton.jit
def _winners(
    scores, codes, image, row, part, slot, start_y, start_x, stride_n, stride_c, stride_y, stride_x, classes,
    h, w, step_y, step_x,
    PARTS_Y: tl.constexpr, PARTS_X: tl.constexpr, ZERO: tl.constexpr, SKIP_ZERO: tl.constexpr,
    LISTED: tl.constexpr, LANES: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """A tuple: the labels of the OUTPUTS outputs of each lane's column."""
    cell_y, cell_x = row // PARTS_Y, part // PARTS_X
    top, bottom = corner_points(cell_y, h, ZERO)
    before, after = corner_points(cell_x, w, ZERO)
    left = scores + image.to(tl.int64) * stride_n + before.to(tl.int64) * stride_x
    right = left + (after - before).to(tl.int64) * stride_x
    upper, lower = top.to(tl.int64) * stride_y, bottom.to(tl.int64) * stride_y
    corners = (left + upper, right + upper, left + lower, right + lower)
    vertical = corner_weights(cell_y, h, tl.load(start_y + row), step_y, ZERO)
    horizontal = corner_weights(cell_x, w, tl.load(start_x + part), step_x, ZERO)
    columns = (horizontal[0] + slot * horizontal[1], horizontal[2] + slot * horizontal[3])
    best, label = (), ()
    for _ in tl.static_range(OUTPUTS):
        best = best + (tl.full(slot.shape, float("-inf"), tl.float32),)
        label = label + (tl.zeros(slot.shape, tl.int32),)
    if LISTED:
        image_codes = codes + image.to(tl.int64) * (h * w)
        points = (top * w + before, top * w + after, bottom * w + before, bottom * w + after)
        a, b = tl.load(image_codes + points[0]), tl.load(image_codes + points[1])
        c, d = tl.load(image_codes + points[2]), tl.load(image_codes + points[3])
        label = _plain_winners(
            best, label, (a, b, c, d), corners, slot, columns, vertical, stride_c, classes, OUTPUTS, LANES
        )
        plain = ((a | b | c | d) & NOT_PLAIN) == 0
        if tl.min(plain.to(tl.int32)) == 0:
            best, label = _keep(label, plain, OUTPUTS)
            label = _exact_winners(
                best, label, corners, columns, vertical, stride_c, classes, SKIP_ZERO, OUTPUTS
            )
    else:
        label = _exact_winners(best, label, corners, columns, vertical, stride_c, classes, SKIP_ZERO, OUTPUTS)
    return label


@triton.jit
def _keep(label, kept, OUTPUTS: tl.constexpr):
    """Scores and labels to go on from: where ``kept``, NaN, which nothing beats, elsewhere as at the start."""
    best, labels = (), ()
    for r in tl.static_range(OUTPUTS):
        best = best + (tl.where(kept, float("nan"), float("-inf")),)
        labels = labels + (tl.where(kept, label[r], 0),)
    return best, labels


@triton.jit
def load_corners(corners, offset):
    """The scores at a cell's four corners in fp32, ``offset`` elements on."""
    a, b = tl.load(corners[0] + offset).to(tl.float32), tl.load(corners[1] + offset).to(tl.float32)
    c, d = tl.load(corners[2] + offset).to(tl.float32), tl.load(corners[3] + offset).to(tl.float32)
    return a, b, c, d


@triton.jit
def _plain_winners(
    best, label, codes, corners, slot, columns, vertical, stride_c, classes,
    OUTPUTS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Winners of plain scores: a multiply-add, a compare and two selects per output and class.

    With enough outputs to a lane, classes that cannot win in any of the block's cells are passed over. One that can
    win in some is taken in those alone: rounding could let it win elsewhere, and cells meet in a block by chance.
    """
    if OUTPUTS >= PRUNED_OUTPUTS:
        bound = _bound(codes, corners, slot, stride_c, LANES)
        for first in range(0, classes, CHUNK):
            own = _survivors(corners, slot, bound, first, stride_c, classes, LANES)
            alive = tl.reduce(own, 0, _either)
            while alive != 0:
                lowest = alive & -alive
                class_index = first + ((lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) & 255) - 127
                alive &= alive - 1
                scores = load_corners(corners, class_index.to(tl.int64) * stride_c)
                candidate = (own & lowest) != 0
                best, label = _take_plain(
                    best, label, class_index, candidate, scores, columns, vertical, OUTPUTS
                )
    else:
        offset = tl.cast(0, tl.int64)
        for class_index in range(classes):
            scores = load_corners(corners, offset)
            best, label = _take_plain(best, label, class_index, True, scores, columns, vertical, OUTPUTS)
            offset += stride_c
    return label


@triton.jit
def _bound(codes, corners, slot, stride_c, LANES: tl.constexpr):
    """A score that some class has everywhere in the cell: the smallest corner of a class that wins a corner.

    Each lane of a cell looks at the winner of one corner, and the best of them serves all.
    """
    own = tl.where(slot % 4 == 0, codes[0], codes[1])
    own = tl.where(slot % 4 == 2, codes[2], tl.where(slot % 4 == 3, codes[3], own))
    a, b, c, d = load_corners(corners, (own & LABEL).to(tl.int64) * stride_c)
    least = tl.reshape(tl.minimum(tl.minimum(a, b), tl.minimum(c, d)), (slot.shape[0] // LANES, LANES))
    bound = tl.broadcast_to(tl.max(least, 1, keep_dims=True), least.shape)
    return tl.reshape(bound, slot.shape)


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _survivors(corners, slot, bound, first, stride_c, classes, LANES: tl.constexpr):
    """Bit i, in all lanes of a cell: class ``first + i`` has a corner at or above the cell's bound.

    A bilinear score lies between its corners, so the others win nowhere; ties stay. The lanes of a cell share the
    CHUNK classes among them.
    """
    alive = tl.zeros(slot.shape, tl.int32)
    for i in tl.static_range(0, CHUNK, LANES):
        class_index = first + i + slot
        offset = class_index.to(tl.int64) * stride_c
        there = class_index < classes
        a, b = tl.load(corners[0] + offset, there, other=0.0), tl.load(corners[1] + offset, there, other=0.0)
        c, d = tl.load(corners[2] + offset, there, other=0.0), tl.load(corners[3] + offset, there, other=0.0)
        largest = tl.maximum(tl.maximum(a, b), tl.maximum(c, d)).to(tl.float32)
        alive |= tl.where(there & (largest >= bound), 1 << (i + slot), 0)
    shares = tl.reshape(alive, (slot.shape[0] // LANES, LANES))  # no two lanes of a cell have a bit in common
    return tl.reshape(tl.broadcast_to(tl.sum(shares, 1, keep_dims=True), shares.shape), slot.shape)


@triton.jit
def _take_plain(best, label, class_index, candidate, scores, columns, vertical, OUTPUTS: tl.constexpr):
    upper = scores[0] * columns[0] + scores[1] * columns[1]
    lower = scores[2] * columns[0] + scores[3] * columns[1]
    start = upper * vertical[0] + lower * vertical[2]
    step = upper * vertical[1] + lower * vertical[3]
    new_best, new_label = (), ()
    for r in tl.static_range(OUTPUTS):
        score = start + r * step if r > 0 else start
        better = candidate & (score > best[r])
        new_best = new_best + (tl.where(better, score, best[r]),)
        new_label = new_label + (tl.where(better, class_index, label[r]),)
    return new_best, new_label


@triton.jit
def blend(a, weight_a, b, weight_b, SKIP_ZERO: tl.constexpr):
    """The weighted sum; with SKIP_ZERO a weight of 0 stands for no tap, so that 0 · inf counts for nothing."""
    first, second = a * weight_a, b * weight_b
    if SKIP_ZERO:
        first, second = tl.where(weight_a == 0, 0.0, first), tl.where(weight_b == 0, 0.0, second)
    return first + second


@triton.jit
def _exact_winners(
    best, label, corners, columns, vertical, stride_c, classes,
    SKIP_ZERO: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Winners of any scores: NaN is the largest score, and the first one wins."""
    above, below = (), ()
    for r in tl.static_range(OUTPUTS):
        above = above + (vertical[0] + r * vertical[1],)
        below = below + (vertical[2] + r * vertical[3],)
    offset = tl.cast(0, tl.int64)
    for class_index in range(classes):
        a, b, c, d = load_corners(corners, offset)
        offset += stride_c
        upper = blend(a, columns[0], b, columns[1], SKIP_ZERO)
        lower = blend(c, columns[0], d, columns[1], SKIP_ZERO)
        new_best, new_label = (), ()
        for r in tl.static_range(OUTPUTS):
            score = blend(upper, above[r], lower, below[r], SKIP_ZERO)
            better = ~(score <= best[r]) & (best[r] == best[r])
            new_best = new_best + (tl.where(better, score, best[r]),)
            new_label = new_label + (tl.where(better, class_index, label[r]),)
        best, label = new_best, new_label
    return label
