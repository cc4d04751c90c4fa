"""Shapes and settings that the launchers of `upsample_add` share."""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor

from fcnkern.ops.upsample_add import is_depthwise
from fcnkern.resample import Pair

ENOUGH_PROGRAMS = 512
"""A sum is split until it has about this many programs: some four on each multiprocessor of a large GPU.

It does not depend on the device, so that the order of summation does not either.
"""


class Deconv(NamedTuple):
    """A transposed convolution and the window of its output that a kernel writes, or whose gradient it reads."""

    x: Tensor
    weight: Tensor | None
    stride: Pair
    rows: Pair
    cols: Pair

    @property
    def is_dense(self) -> bool:
        return self.weight is not None and not is_depthwise(self.weight, self.x.shape[1])

    @property
    def outputs(self) -> int:
        return self.weight.shape[1] if self.weight is not None and self.is_dense else self.x.shape[1]

    @property
    def kernel(self) -> Pair:
        if self.weight is not None:
            return self.weight.shape[2], self.weight.shape[3]
        sy, sx = self.stride
        return 2 * sy - sy % 2, 2 * sx - sx % 2

    @property
    def full_size(self) -> Pair:
        (h, w), (kh, kw), (sy, sx) = self.x.shape[2:], self.kernel, self.stride
        return (h - 1) * sy + kh, (w - 1) * sx + kw

    @property
    def size(self) -> Pair:
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    @property
    def cells(self) -> Pair:
        """How many strides the window touches, down and across."""
        (y0, y1), (x0, x1), (sy, sx) = self.rows, self.cols, self.stride
        return (y1 - 1) // sy + 1 - y0 // sy, (x1 - 1) // sx + 1 - x0 // sx

    @property
    def place(self) -> tuple[int, ...]:
        """Size of x, first row and column of the window, its size: in the order that the kernels take them."""
        return (*self.x.shape[2:], self.rows[0], self.cols[0], *self.size)

    @property
    def constants(self) -> dict[str, int]:
        """Kernel and stride as the kernels take them."""
        names = ("KH", "KW", "SY", "SX")
        return dict(zip(names, (*self.kernel, *self.stride), strict=True))

    @property
    def is_whole(self) -> bool:
        return (self.rows, self.cols) == tuple((0, end) for end in self.full_size)


def whole(x: Tensor, weight: Tensor | None, stride: Pair) -> Deconv:
    """A transposed convolution with all of its output."""
    height, width = Deconv(x, weight, stride, (0, 0), (0, 0)).full_size
    return Deconv(x, weight, stride, (0, height), (0, width))


def strides(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tensor.stride()


def power_of_2(count: int, least: int, most: int) -> int:
    """The smallest power of 2 that holds ``count``, within bounds."""
    return max(least, min(most, triton.next_power_of_2(count)))


def has_channels_last(tensor: Tensor) -> bool:
    """Whether neighbours in memory are channels rather than columns."""
    return tensor.stride(1) < tensor.stride(3)


def split(programs: int, most: int) -> int:
    """Into how many parts to cut each of ``programs`` sums of ``most`` terms."""
    return max(1, min(most, ENOUGH_PROGRAMS // programs))
