"""Inverted dropout whose mask is a function of the seed and the element, formed again wherever it is needed.

Element e (in N×O×H×W order, whatever the layout) is kept iff word e % 4 of Philox4x32-10 with the seed as its key and
(e / 4, 0, 1) as its counter, 64 + 32 + 32 bits, is at least p · 2^32.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from fcnkern.backends.triton._conv1x1_pixels import image_and_pixel


def dropout_arguments(dropout_p: float, seed: Tensor | None) -> tuple[bool, int, float]:
    """Whether anything is dropped, the largest word that drops (as an int32 of the same bits), and 1 / (1 - p)."""
    if seed is None or dropout_p == 0:
        return False, 0, 1.0
    last = math.ceil(dropout_p * 2**32) - 1
    return True, last - 2**32 if last >= 2**31 else last, 1 / (1 - dropout_p)


@triton.jit
def _philox(seed, block):
    """The four words of each block: `tl.philox` with one wide multiplication for the two halves of a product."""
    key = seed.to(tl.uint64, bitcast=True)
    k0, k1 = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    c2, c3 = c0 * 0, c0 * 0 + 1
    for _ in tl.static_range(10):
        product0 = c0.to(tl.uint64) * 0xD2511F53
        product1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1 = (product1 >> 32).to(tl.uint32) ^ c1 ^ k0, product1.to(tl.uint32)
        c2, c3 = (product0 >> 32).to(tl.uint32) ^ c3 ^ k1, product0.to(tl.uint32)
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def kept_elements(seed, last_dropped, start, channels, plane, C, BLOCK: tl.constexpr, IN_FOURS: tl.constexpr):
    """Which elements of BLOCK pixels from number ``start`` (a multiple of 4) × ``channels`` of C are kept.

    IN_FOURS: ``plane`` (H·W) is a multiple of 4, so that four neighbouring pixels share one Philox block.
    """
    SHARED: tl.constexpr = 4 if IN_FOURS else 1
    image, pixel = image_and_pixel(start, tl.arange(0, BLOCK // SHARED) * SHARED, plane)
    first = image.to(tl.int64) * C * plane + pixel
    channel = channels.to(tl.int64) * plane
    last = (tl.zeros((), tl.int32) + last_dropped).to(tl.uint32, bitcast=True)
    if IN_FOURS:
        w0, w1, w2, w3 = _philox(tl.load(seed), (first >> 2)[:, None] + (channel >> 2)[None, :])
        even = tl.join((w0 > last).to(tl.int8), (w2 > last).to(tl.int8))
        odd = tl.join((w1 > last).to(tl.int8), (w3 > last).to(tl.int8))
        fours = tl.permute(tl.join(even, odd), (0, 2, 3, 1))
        kept = tl.reshape(fours, (BLOCK, channels.shape[0])) != 0
    else:
        element = first[:, None] + channel[None, :]
        w0, w1, w2, w3 = _philox(tl.load(seed), element >> 2)
        low = tl.where((element & 1) != 0, w1, w0)
        high = tl.where((element & 1) != 0, w3, w2)
        kept = tl.where((element & 2) != 0, high, low) > last
    return kept
