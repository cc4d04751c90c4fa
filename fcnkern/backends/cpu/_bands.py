"""Learned upsampling in horizontal bands of outputs, so that no full-resolution scores exist at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern.backends.cpu._arguments import accumulation_type
from fcnkern.ops.upsample_add import is_depthwise
from fcnkern.resample import Pair, Resample

BAND_BYTES = 1 << 22


class Band(NamedTuple):
    """Rows ``first_row .. first_row + H' - 1`` of the upsampled scores of one image."""

    image: int
    first_row: int
    source: Tensor
    """The rows of low-resolution scores that reach the band, 1×C'×h'×w, in the accumulation type."""
    source_row: int
    above: int
    """Rows of the source's transposed convolution that lie above the band."""
    scores: Tensor
    """1×C×H'×W, a view."""


class LearnedUpsampling:
    """A transposed convolution and a crop, as `Resample.deconv` and a learned weight give them.

    Memory: a band holds at most 4 MiB of upsampled scores (one row where a row is larger), beside it what kernel
    overlap and crop add.
    """

    def __init__(self, scores: Tensor, weight: Tensor, resample: Resample, size: Pair) -> None:
        self.scores, self.resample, self.size = scores, resample, size
        self.weight = weight.to(accumulation_type(scores.dtype))
        self.groups = scores.shape[1] if is_depthwise(weight, scores.shape[1]) else 1
        self.classes = weight.shape[1] * self.groups

    def bands(self) -> Iterator[Band]:
        """All bands, image by image, top to bottom."""
        height, width = self.size
        rows = max(1, BAND_BYTES // (self.classes * width * self.weight.element_size()))
        for image in range(self.scores.shape[0]):
            for first_row in range(0, height, rows):
                yield self._band(image, first_row, min(rows, height - first_row))

    def _band(self, image: int, first_row: int, rows: int) -> Band:
        (stride, _), (oy, ox) = self.resample.factor, self.resample.offset
        top = oy + first_row
        end = min(self.scores.shape[2], (top + rows - 1) // stride + 1)
        start = min(max(0, -((self.weight.shape[2] - 1 - top) // stride)), end - 1)
        source = self.scores[image : image + 1, :, start:end].to(self.weight.dtype)
        full = F.conv_transpose2d(source, self.weight, stride=self.resample.factor, groups=self.groups)
        above = top - start * stride
        missing = max(0, above + rows - full.shape[2])  # where the stride leaves gaps between the kernels
        full = F.pad(full, (0, 0, 0, missing))
        scores = full[:, :, above : above + rows, ox : ox + self.size[1]]
        return Band(image, first_row, source, start, above, scores)

    def backward(self, band: Band, grad: Tensor, grad_scores: Tensor, grad_weight: Tensor) -> None:
        """Adds what the gradient of a band's scores gives for the low-resolution scores and for the weight."""
        (sy, sx), ox = self.resample.factor, self.resample.offset[1]
        full_height = (band.source.shape[2] - 1) * sy + self.weight.shape[2]
        full_width = (band.source.shape[3] - 1) * sx + self.weight.shape[3]
        below = full_height - band.above - grad.shape[2]
        whole = F.pad(grad, (ox, full_width - ox - grad.shape[3], band.above, below))
        settings = (None, (sy, sx), (0, 0), (1, 1), True, (0, 0), self.groups, (True, True, False))
        source_grad, weight_grad, _ = torch.ops.aten.convolution_backward(
            whole, band.source, self.weight, *settings
        )
        grad_scores[band.image, :, band.source_row : band.source_row + band.source.shape[2]] += source_grad[0]
        grad_weight += weight_grad
