"""How the gradient of a 1x1 convolution's weight is summed on any GPU backend: over ranges of pixels, one by one."""

from __future__ import annotations

MAX_SCRATCH = 1 << 22
"""Most partial sums in scratch memory, 16 MB."""
RANGE = 256
"""Ranges of pixels are multiples of this."""


def pixel_ranges(pixels: int, outputs: int, inputs: int, wanted: int) -> tuple[int, int]:
    """How many pixels are summed together, and how many such ranges there are: ``wanted``, where that is possible."""
    most = max(1, min(wanted, MAX_SCRATCH // (outputs * (inputs + 1))))
    span = -(-pixels // (most * RANGE)) * RANGE
    return span, -(-pixels // span)
