"""Convolutions that know their initialisation, so that constructing a model once gives it sane weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class BodyConv2d(nn.Conv2d):
    """A convolution followed by a ReLU: He-initialised weight (normal, fan in), zero bias."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ScoreConv2d(nn.Conv2d):
    """A 1x1 classifier initialised to zero: training starts at a loss of ln C per pixel, as in the paper."""

    def __init__(self, in_channels: int, n_class: int) -> None:
        super().__init__(in_channels, n_class, kernel_size=1)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def bilinear_kernel(size: int) -> Tensor:
    """The (size, size) fp64 kernel of the authors' `upsample_filt`, for upsampling by (size + 1) // 2."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    taps = 1 - (torch.arange(size, dtype=torch.float64, device="cpu") - centre).abs() / factor
    return taps[:, None] * taps[None, :]


class BilinearDeconv2d(nn.ConvTranspose2d):
    """A transposed convolution (C, C, k, k) that starts as bilinear upsampling by f: k = 2f - f%2, stride f, no bias.

    `learned` sets `weight.requires_grad`. While the weight is frozen and really is bilinear, `taps()` is None and the
    models use the fixed two-tap path, which gives the same numbers without the dense C x C kernel. A frozen weight
    that is not bilinear (loaded from a checkpoint, say) is used as it is. The check is repeated when the weight has
    been loaded or changed in place. An edit through `.data`, which PyTorch does not record, needs a `refresh()`;
    so does any edit after `torch.compile` has traced the model.
    """

    _bilinear = True
    _checked_version = -1

    def __init__(self, channels: int, factor: int, *, learned: bool = False) -> None:
        super().__init__(channels, channels, 2 * factor - factor % 2, stride=factor, bias=False)
        self.weight.requires_grad_(learned)

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            with torch.no_grad():
                self.weight.copy_(self._bilinear_weight())
        self.refresh()

    def taps(self) -> Tensor | None:
        """The weight to upsample with, or None where the fixed bilinear path is the same thing."""
        if self.weight.requires_grad:
            return self.weight
        if not torch.compiler.is_compiling() and self._version_of_weight() != self._checked_version:
            self.refresh()
        return None if self._bilinear else self.weight

    def refresh(self) -> None:
        """Look again whether the weight is bilinear (to one unit in the last place of its dtype)."""
        weight = self.weight.detach()
        self._checked_version = self._version_of_weight()
        if not weight.is_meta:
            expected = self._bilinear_weight().to(weight)
            tolerance = torch.finfo(weight.dtype).eps
            self._bilinear = torch.allclose(weight, expected, rtol=0.0, atol=tolerance)

    def _version_of_weight(self) -> int:
        # An inference tensor has no version: it cannot be changed in place outside inference mode either.
        return 0 if self.weight.is_inference() else self.weight._version

    def _bilinear_weight(self) -> Tensor:
        channels, _, size, _ = self.weight.shape
        weight = torch.zeros(channels, channels, size, size, dtype=torch.float64, device="cpu")
        weight[range(channels), range(channels)] = bilinear_kernel(size)
        return weight

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.refresh()
