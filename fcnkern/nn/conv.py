"""Modules of the operations that hold weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fcnkern.functional import conv1x1, upsample_add


class Conv1x1(nn.Module):
    """`fcnkern.conv1x1` with its weight and bias; parameters and initialisation are those of ``nn.Conv2d(…, 1)``.

    Args:
        in_channels: C. out_channels: O.
        bias: whether there is one.
        relu: whether negative outputs become 0.
        dropout_p: probability of dropping an output while training, drawn from torch's generator.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        relu: bool = False,
        dropout_p: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.relu = relu
        self.dropout_p = dropout_p
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fills the parameters as ``nn.Conv2d`` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight.shape[1])
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W to N×O×H×W."""
        dropout_p = self.dropout_p if self.training else 0.0
        return conv1x1(x, self.weight, self.bias, relu=self.relu, dropout_p=dropout_p)

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        channels = f"{self.weight.shape[1]}, {self.weight.shape[0]}"
        return f"{channels}, bias={self.bias is not None}, relu={self.relu}, dropout_p={self.dropout_p}"


class UpsampleAdd(nn.Module):
    """`fcnkern.upsample_add`: upsampling of scores plus a cropped skip (Long et al. 2015, section 4.2).

    Args:
        channels: C, the classes.
        stride: of the transposed convolution; its kernel is 2·stride - stride % 2.
        skip_offset: crop of the skip.
        skip_channels: features of the skip, scored inside by a zero-initialised 1×1 classifier; None takes skips
            that are scores already.
        skip_scale: factor on the skip.
        learned: None keeps the bilinear weights fixed, "depthwise" learns one kernel per channel and "dense" one
            per pair of channels, both starting as bilinear.
    """

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        skip_offset: int | tuple[int, int] = 0,
        skip_channels: int | None = None,
        skip_scale: float = 1.0,
        learned: str | None = None,
    ) -> None:
        super().__init__()
        if learned not in (None, "depthwise", "dense"):
            raise ValueError(f"learned must be None, 'depthwise' or 'dense', got {learned!r}")
        self.stride = stride
        self.skip_offset = skip_offset
        self.skip_scale = skip_scale
        self.weight: nn.Parameter | None = None
        if learned is not None:
            self.weight = nn.Parameter(bilinear_weight(channels, stride, dense=learned == "dense"))
        self.skip_weight: nn.Parameter | None = None
        self.skip_bias: nn.Parameter | None = None
        if skip_channels is not None:
            self.skip_weight = nn.Parameter(torch.zeros(channels, skip_channels, 1, 1))
            self.skip_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """N×C×h×w scores and a skip to N×C×((h-1)·stride+k)×((w-1)·stride+k)."""
        if skip is None:
            return upsample_add(x, self.weight, stride=self.stride)
        return upsample_add(
            x,
            self.weight,
            skip,
            stride=self.stride,
            skip_offset=self.skip_offset,
            skip_weight=self.skip_weight,
            skip_bias=self.skip_bias,
            skip_scale=self.skip_scale,
        )

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        learned = self.weight is not None
        return f"stride={self.stride}, skip_offset={self.skip_offset}, learned={learned}"


def bilinear_weight(channels: int, stride: int, dense: bool = True) -> Tensor:
    """Caffe's bilinear filler for a transposed convolution with kernel k = 2·stride - stride % 2.

    Returns:
        dense: channels×channels×k×k with the kernel on the diagonal; otherwise channels×1×k×k.
    """
    k = 2 * stride - stride % 2
    line = 1 - (torch.arange(k) - (k - 1) / 2).abs() / stride
    kernel = torch.outer(line, line)
    if not dense:
        return kernel.expand(channels, 1, k, k).clone()
    weight = torch.zeros(channels, channels, k, k)
    weight[torch.arange(channels), torch.arange(channels)] = kernel
    return weight
