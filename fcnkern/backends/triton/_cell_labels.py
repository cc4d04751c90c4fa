"""The labels of a cell's pixels: which pixels count, and for each class how many labels lie where.

Pixels in reading order make runs of one class; a run is added up in registers and goes to memory where it ends, so
that the usual cell, of one class, costs one addition.

The sums over the labels of one class and cell (number, rows, columns, row · column; rows and columns from 0) are
integers below 64, 256, 256 and 1024 that share a 32-bit word of the program's scratch; 64 labels overflow out of the
word, which is then not zero otherwise. Each lane adds to its own words only; the words before class 0 and after the
last take what does not count and are never read. With ``PIXEL_WEIGHT`` the sums are weighted: four planes of fp32,
added to in the order of the pixels.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._pixels import class_of, is_class, is_hard, is_kept, report_label, sampling_word

NUMBER = tl.constexpr(1 << 26)
ROW = tl.constexpr(1 << 10)
COLUMN = tl.constexpr(1 << 18)


@triton.jit
def coarse_words(seed, n, first_y, first_x, cell):
    """Random words of the up to four sampling cells that a cell of at most ``cell`` pixels a side touches."""
    X, Y = first_x // cell * cell, first_y // cell * cell
    upper_left = sampling_word(seed, n, Y, X, cell)
    upper_right = sampling_word(seed, n, Y, X + cell, cell)
    lower_left = sampling_word(seed, n, Y + cell, X, cell)
    return upper_left, upper_right, lower_left, sampling_word(seed, n, Y + cell, X + cell, cell), X, Y


@triton.jit
def _word(seed, words, n, Y, X, cell, COARSE: tl.constexpr):
    if COARSE:
        left = tl.where(words[5] + cell > Y, words[0], words[2])
        right = tl.where(words[5] + cell > Y, words[1], words[3])
        return tl.where(words[4] + cell > X, left, right)
    return sampling_word(tl.load(seed), n, Y, X, cell)


@triton.jit
def pixel_class(
    pixels, pointer, words, n, Y, X, inside, C, ignore_index, cell,
    SAMPLING: tl.constexpr, COARSE: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    """`class_of` pixels, -1 also where they are not kept; and that of the label alone.

    ``pixels``: pointers (target of image n, limits, seed, hard, cuts) and sizes (t_h, t_w, H, W); ``words``: those of
    `coarse_words`, where COARSE.
    """
    target, limits, seed, hard, cuts, t_h, t_w, H, W = pixels
    found = class_of(tl.load(pointer, mask=inside, other=ignore_index), C, ignore_index)
    kind = found
    if SAMPLING > 0:
        word = _word(seed, words, n, Y, X, cell, COARSE)
        kind = tl.where(is_kept(kind, word, limits, SAMPLING, C), kind, -1)
    if HARD:
        kind = tl.where(is_hard(hard, cuts, (n.to(tl.int64) * H + Y) * W + X, is_class(kind, C)), kind, -1)
    return kind, found


@triton.jit
def add_run(counts, kind, run, ends, LANES: tl.constexpr):
    """Adds what a run of pixels of one class sums up to, where it ends; also of those that do not count."""
    tl.atomic_add(counts + kind.to(tl.int64) * LANES, run, mask=ends, sem="relaxed")


@triton.jit
def add_weight(counts, kind, weight, v, r, C, LANES: tl.constexpr):
    """Adds the weight of pixel (v, r) to the four planes."""
    place = counts + kind.to(tl.int64) * LANES
    plane = (C + 2) * LANES
    tl.store(place, tl.load(place) + weight)
    tl.store(place + plane, tl.load(place + plane) + weight * v)
    tl.store(place + 2 * plane, tl.load(place + 2 * plane) + weight * r)
    tl.store(place + 3 * plane, tl.load(place + 3 * plane) + weight * (v * r))


@triton.jit
def take_counts(counts, C, LANES: tl.constexpr, PIXEL_WEIGHT: tl.constexpr):
    """Sums over the labels of a class by 1, row, column and row · column; leaves zeros for the next row of cells."""
    if PIXEL_WEIGHT:
        plane = (C + 2) * LANES
        number, by_row = tl.load(counts), tl.load(counts + plane)
        by_column, by_both = tl.load(counts + 2 * plane), tl.load(counts + 3 * plane)
        for k in tl.static_range(4):
            tl.store(counts + k * plane, tl.zeros_like(number))
        return number, by_row, by_column, by_both
    word = tl.load(counts)
    tl.store(counts, word * 0, mask=word != 0)
    return unpack(word)


@triton.jit
def unpack(word):
    """The four sums that share a word, as fp32."""
    bits = word.to(tl.uint32, bitcast=True)
    number = (bits >> 26).to(tl.int32)
    number = tl.where((number == 0) & (word != 0), 64, number)
    by_column = ((bits >> 18) & 255).to(tl.int32)
    by_row = ((bits >> 10) & 255).to(tl.int32)
    by_both = (bits & 1023).to(tl.int32)
    return number.to(tl.float32), by_row.to(tl.float32), by_column.to(tl.float32), by_both.to(tl.float32)


@triton.jit
def report_rows(flag, target, n, first_y, count_y, first_x, count_x, t_h, t_w, H, W, C, ignore_index):
    """Looks for a label out of range among the pixels of the cells again, and reports it."""
    for v in range(count_y):
        for r in range(tl.max(count_x, 0)):
            Y, X = first_y + v, first_x + r
            inside = r < count_x
            at = target + Y.to(tl.int64) * t_h + X.to(tl.int64) * t_w
            label = tl.load(at, mask=inside, other=ignore_index)
            wrong = class_of(label, C, ignore_index) == C
            if tl.max(wrong.to(tl.int32), 0) > 0:
                report_label(flag, label, (n.to(tl.int64) * H + Y) * W + X, wrong)
