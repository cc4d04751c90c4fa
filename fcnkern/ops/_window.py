"""The windows of a pooling, and the element of its input that each output was taken from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.resample import Pair, as_pair

WINDOW_SCHEMA = "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, bool ceil_mode"
NO_WINNER = 255
"""The winner of a window all of whose elements a ReLU has closed: no gradient passes."""


class Window(NamedTuple):
    """Windows of kernel_size elements, stride apart, of which the first begins ``padding`` before the input.

    Elements outside the input do not take part. A window's winner, one byte, is the place in it, row by row, of the
    element that is its largest: the first of equal ones, the last NaN.
    """

    kernel_size: Pair
    stride: Pair
    padding: Pair
    ceil_mode: bool

    @staticmethod
    def of(
        kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair, ceil_mode: bool
    ) -> Window:
        """The checked window of a call; a stride of None is the kernel size.

        Raises:
            TypeError, ValueError: a size is no whole number or pair of them, the window has more than 255 elements,
                or the padding exceeds half of it.
        """
        kernel = as_pair("kernel_size", kernel_size, 1)
        pads = as_pair("padding", padding, 0)
        if kernel[0] * kernel[1] > NO_WINNER:
            raise ValueError(f"kernel_size must span at most {NO_WINNER} elements, got {kernel}")
        if any(2 * pad > size for pad, size in zip(pads, kernel, strict=True)):
            raise ValueError(f"padding must be at most half of kernel_size {kernel}, got {pads}")
        return Window(kernel, kernel if stride is None else as_pair("stride", stride, 1), pads, ceil_mode)

    def fitted(self, height: int, width: int) -> Window:
        """The same windows with strides no longer than they need be: kernels take memory and indices for a stride."""
        sizes = zip(self.stride, self.kernel_size, (height, width), self.padding, strict=True)
        # A single window stays one: rounded up, its number hangs on the stride where it is larger than the input.
        rows, columns = (min(stride, max(size + pad, kernel)) for stride, kernel, size, pad in sizes)
        return self._replace(stride=(rows, columns))

    def out_size(self, height: int, width: int) -> Pair:
        """(h, w) of the output, as F.max_pool2d has it."""
        rows, columns = (self._count(axis, size) for axis, size in enumerate((height, width)))
        return rows, columns

    def _count(self, axis: int, size: int) -> int:
        kernel, stride, pad = self.kernel_size[axis], self.stride[axis], self.padding[axis]
        span = size + 2 * pad - kernel
        count = (span + stride - 1 if self.ceil_mode else span) // stride + 1
        # A window that would begin behind the input and its left padding is left out.
        return count - 1 if self.ceil_mode and (count - 1) * stride >= size + pad else count

    def places(self, winners: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(flat index in a plane of the input, whether there is one) of each window's winner, int64 and bool."""
        winning = winners != NO_WINNER
        code = winners.to(torch.int64)
        lines = (torch.arange(count, device=winners.device) for count in winners.shape[2:])
        first_row, first_column = (
            line * stride - pad for line, stride, pad in zip(lines, self.stride, self.padding, strict=True)
        )
        row = first_row[:, None] + code // self.kernel_size[1]
        column = first_column + code % self.kernel_size[1]
        return torch.where(winning, row * width + column, 0), winning
