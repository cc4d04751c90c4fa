"""Memory for large results."""

from __future__ import annotations

from torch import Tensor

from fcnkern.backends.cpu._extension import kernels

LARGE = 4 << 20
"""Bytes from which a result holds a whole page of 2 MiB, wherever it lies."""


def in_huge_pages(result: Tensor) -> Tensor:
    """The tensor, not yet written, in pages of 2 MiB where it is large and the system has them.

    The C library takes large blocks from the system afresh. In pages of 4 KiB the system then clears and maps them
    more slowly than most kernels here write them.
    """
    if result.nbytes >= LARGE:
        kernels.advise_huge_pages(result.data_ptr(), result.nbytes)
    return result
