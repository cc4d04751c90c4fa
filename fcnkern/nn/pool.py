"""Max pooling as a module."""

from __future__ import annotations

from torch import Tensor, nn

from fcnkern.ops._library import is_watched
from fcnkern.ops._window import NO_WINNER
from fcnkern.ops.max_pool2d import max_pool2d
from fcnkern.resample import as_pair


class MaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d` by `fcnkern.max_pool2d`, which keeps one byte per output for the backward pass.

    PyTorch's own runs where that has no place: for a compiler or a tracer, with indices, with dilation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """N,C,H,W -> N,C,h,w."""
        return self.pooled(x) if self.is_ours(x) else super().forward(x)

    def pooled(self, x: Tensor, relu: bool = False) -> Tensor:
        """The output for x, or for its positive part, where `is_ours`."""
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return max_pool2d(x, *window, relu=relu)

    def is_ours(self, x: Tensor) -> bool:
        """Whether `fcnkern.max_pool2d` can run on x, which may be a graph's stand-in."""
        if not isinstance(x, Tensor) or is_watched((x,)) or self.return_indices:
            return False
        rows, columns = as_pair("kernel_size", self.kernel_size, 1)
        plain = as_pair("dilation", self.dilation, 1) == (1, 1) and rows * columns <= NO_WINNER
        return plain and x.dim() == 4 and x.is_floating_point()
