"""Which pixels of a loss count: label, sampling and hard-pixel mining, for one pixel per lane.

Sampling modes (constexpr ``SAMPLING``): 0 keeps all, 1 keeps with one probability, 2 with one per class. A pixel is
kept iff the first word of Philox4x32-10 with the seed as key and its sampling cell as counter is at most the limit,
``ceil(p * 2^32) - 1``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sampling_word(seed, n, Y, X, cell):
    """The random word, as int64, of the sampling cell of each pixel."""
    counter = (X // cell).to(tl.uint32)
    zero = counter * 0
    word, _, _, _ = tl.philox(seed, counter, zero + (Y // cell).to(tl.uint32), zero + n.to(tl.uint32), zero)
    return word.to(tl.uint32, bitcast=True).to(tl.int64)


@triton.jit
def class_of(label, C, ignore_index):
    """The label as int32: -1 where it is ignored, C where it is out of range."""
    if label.dtype == tl.int64:
        low = tl.where((label >> 32) == 0, label.to(tl.int32), -1)
    else:
        low = label.to(tl.int32)
    inside = tl.minimum(low.to(tl.uint32, bitcast=True), tl.cast(C, tl.uint32)).to(tl.int32, bitcast=True)
    return tl.where(label == ignore_index, -1, inside)


@triton.jit
def is_class(kind, C):
    """Whether the result of `class_of` is a class."""
    return kind.to(tl.uint32, bitcast=True) < tl.cast(C, tl.uint32)


@triton.jit
def is_kept(classes, word, limits, SAMPLING: tl.constexpr, C):
    """Whether sampling keeps pixels with these classes and words."""
    if SAMPLING == 1:
        return word <= tl.load(limits)
    return word <= tl.load(limits + classes, mask=is_class(classes, C), other=-1)


@triton.jit
def is_hard(hard, cuts, offset, inside):
    """Whether the loss of a pixel is above the first cut or reaches the second one."""
    loss = tl.load(hard + offset, mask=inside, other=0.0)
    return (loss > tl.load(cuts)) | (loss >= tl.load(cuts + 1))


@triton.jit
def report_label(flag, label, index, wrong):
    """Tells the host where one of the ``wrong`` pixels is, and its label.

    The first program to claim the third word writes the other two, the index last: where the host sees it, the label
    is there and is that of the same pixel.
    """
    first = tl.min(tl.where(wrong, index, 0x7FFFFFFFFFFFFFFF), 0)
    value = tl.max(tl.where(wrong & (index == first), label.to(tl.int64), -0x7FFFFFFFFFFFFFFF - 1), 0)
    claimed = tl.atomic_xchg(flag + 2, 1, sem="relaxed") == 0
    tl.store(flag + 1, value, claimed)
    tl.atomic_xchg(flag, first + 1, claimed, sem="release", scope="sys")
