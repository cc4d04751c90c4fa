"""max_pool2d in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.ops._window import NO_WINNER, Window
from fcnkern.resample import Pair


def max_pool2d_fwd(x: Tensor, window: Window, relu: bool, need_winners: bool) -> tuple[Tensor, Tensor | None]:
    """F.max_pool2d, and the winners from its indices where they are needed."""
    given = x.relu() if relu else x
    kernel, stride, padding, ceil_mode = window
    settings = (kernel, stride, padding, 1, ceil_mode)
    if not need_winners:
        return F.max_pool2d(given, *settings), None
    out, index = F.max_pool2d(given, *settings, return_indices=True)
    rows, columns = (torch.arange(count, device=x.device) for count in out.shape[2:])
    row = index // x.shape[3] - (rows * stride[0] - padding[0])[:, None]
    column = index % x.shape[3] - (columns * stride[1] - padding[1])
    winners = (row * kernel[1] + column).to(torch.uint8)
    return out, winners.masked_fill(out == 0, NO_WINNER) if relu else winners


def max_pool2d_bwd(grad: Tensor, winners: Tensor, window: Window, size: Pair) -> Tensor:
    """The gradient of each output, added to that of its winner; sums of 16-bit numbers in fp32."""
    places, winning = window.places(winners, size[1])
    passed = torch.where(winning, grad, 0).to(accumulation_type(grad.dtype))
    zeros = passed.new_zeros(*grad.shape[:2], size[0] * size[1])
    summed = zeros.scatter_add(2, places.flatten(2), passed.flatten(2))
    return summed.view(*grad.shape[:2], *size).to(grad.dtype)
