"""The pixels of a batch as one row of N·H·W, whatever the strides of the tensors that are read and written there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fcnkern.backends.triton._launch import size_class
from fcnkern.backends.triton._math import precision

ONE_RUN, PLANES, ROWS = range(3)
MAX_ALIGN = 16


class Pixels(NamedTuple):
    """Where N×·×H×W tensors have their pixels.

    ``geometry`` says how far the three axes are one for all the tensors: ONE_RUN, a single stride over N·H·W;
    PLANES, one stride over H·W and one over images; ROWS, a stride each. ``strides`` are those of each tensor over
    (images, channels, rows, columns), with the stride of merged axes last.
    """

    geometry: int
    size: int
    plane: int
    """H·W of the tensors, also where images are merged."""
    width: int
    strides: tuple[tuple[int, ...], ...]
    align: int
    """Runs of so many pixels lie together at multiples of as many elements in every tensor; 1 if not NCHW."""

    @staticmethod
    def of(*tensors: Tensor) -> Pixels:
        """The pixels shared by tensors that differ in channels and strides only."""
        n, _, height, width = tensors[0].shape
        plane = height * width
        strides = [t.stride() for t in tensors]
        geometry, run, size = ROWS, width, n * plane
        if all(_mergeable(height, width, sy, sx) for _, _, sy, sx in strides):
            geometry, run = PLANES, plane
            strides = [(sn, sc, 0, sx if width > 1 else sy) for sn, sc, sy, sx in strides]
            if all(_mergeable(n, plane, sn, s) for sn, _, _, s in strides):
                geometry, run = ONE_RUN, size
                strides = [(0, sc, 0, s if plane > 1 else sn) for sn, sc, _, s in strides]
        align = _alignment(strides, run)
        return Pixels(geometry, size, plane, width if geometry == ROWS else 0, tuple(strides), align)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The kernels' arguments ``count``, ``plane`` and ``width``."""
        return self.size, self.plane, self.width

    def constants(self, like: Tensor) -> dict[str, int | bool | str]:
        """What the pixels decide in a kernel, and type and device of ``like``."""
        return {
            "GEOMETRY": self.geometry,
            "ALIGN": self.align,
            "IN_FOURS": self.plane % 4 == 0,
            "PRECISION": precision(like),
        }

    @property
    def size_class(self) -> int:
        """Calls of one class share a tuned configuration."""
        return size_class(self.size, *self.strides)


def _mergeable(outer: int, inner: int, outer_stride: int, inner_stride: int) -> bool:
    return outer == 1 or inner == 1 or outer_stride == inner * inner_stride


def _alignment(strides: Sequence[tuple[int, ...]], run: int) -> int:
    if any(stride[3] != 1 for stride in strides):
        return 1
    align = MAX_ALIGN
    for *outer, _ in strides:
        while any(value % align for value in (*outer, run)):
            align //= 2
    return align


@triton.jit
def image_and_pixel(start, local, plane):
    """Image and pixel in it of the pixels ``start + local``.

    Divided in 32 bits where a plane has less than 2^31 pixels: 64-bit division takes several times as long.
    """
    inside = (start % plane).to((tl.zeros((), tl.int32) + plane).dtype) + local
    return start // plane + inside // plane, inside % plane


@triton.jit
def pixel_places(start, plane, width, BLOCK: tl.constexpr, GEOMETRY: tl.constexpr):
    """(image, row, column) of BLOCK pixels from number ``start``, an int64; for ONE_RUN (start, -, local pixel).

    The row counts for ROWS only.
    """
    local = tl.arange(0, BLOCK)
    if GEOMETRY == 0:
        image, row, column = start, local, local  # local offsets then are the same for every start
    elif GEOMETRY == 1:
        image, column = image_and_pixel(start, local, plane)
        row = local
    else:
        image, pixel = image_and_pixel(start, local, plane)
        row, column = pixel // width, pixel % width
    return image, row, column


@triton.jit
def pixel_offsets(places, strides, GEOMETRY: tl.constexpr, ALIGN: tl.constexpr):
    """Offsets, int64, of the places of `pixel_places` in a tensor with those strides."""
    image, row, column = places
    offsets = column.to(tl.int64) * strides[3]
    if GEOMETRY == 0:
        offsets += image * strides[3]
    else:
        offsets += image.to(tl.int64) * strides[0]
    if GEOMETRY == 2:
        offsets += row.to(tl.int64) * strides[2]
    if ALIGN > 1:
        offsets = tl.max_contiguous(tl.multiple_of(offsets, ALIGN), ALIGN)
    return offsets


@triton.jit
def pixel_mask(start, count, BLOCK: tl.constexpr, ALIGN: tl.constexpr):
    """Which of BLOCK pixels from number ``start`` exist."""
    mask = start + tl.arange(0, BLOCK) < count
    return tl.max_constancy(mask, ALIGN) if ALIGN > 1 else mask


@triton.jit
def channel_offsets(channels, strides, ALIGN: tl.constexpr):
    """Offsets, int64, of channels in a tensor whose pixels have that alignment."""
    offsets = channels.to(tl.int64) * strides[1]
    return tl.multiple_of(offsets, ALIGN) if ALIGN > 1 else offsets


@triton.jit
def tile_addresses(tensor, strides, places, channels, GEOMETRY: tl.constexpr, ALIGN: tl.constexpr):
    """Addresses of the places of `pixel_places` × ``channels`` in a tensor."""
    at = tensor + pixel_offsets(places, strides, GEOMETRY, ALIGN)[:, None]
    return at + channel_offsets(channels, strides, ALIGN)[None, :]
