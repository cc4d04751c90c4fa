"""The prediction as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcnkern.functional import upsample_argmax
from fcnkern.resample import Resample


class UpsampleArgmax(nn.Module):
    """`fcnkern.upsample_argmax`: scores to a label map of the resampling's size.

    Args:
        resample: how scores become H×W.
        out_dtype: of the labels; uint8 holds up to 256 classes.
    """

    def __init__(self, resample: Resample, out_dtype: torch.dtype = torch.uint8) -> None:
        super().__init__()
        self.resample = resample
        self.out_dtype = out_dtype

    def forward(self, scores: Tensor) -> Tensor:
        """N×C×h×w scores to N×H×W labels."""
        return upsample_argmax(scores, self.resample, out_dtype=self.out_dtype)

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        return f"{self.resample.spec}, out_dtype={self.out_dtype}"
