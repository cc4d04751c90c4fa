"""Learned upsampling in horizontal bands of outputs, so that no full-resolution scores exist at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fcnkern.ops.upsample_add import is_depthwise
from fcnkern.resample import Pair, Resample

BAND_BYTES = 1 << 22
"""Most bytes of upsampled scores in a band on the CPU, where they should stay in its cache."""

GPU_BAND_BYTES = 1 << 26
"""The same on a GPU, where a band must also be work enough for every multiprocessor."""


class Deconvolution(Protocol):
    """A backend's module `upsample_add`: its transposed convolution alone, by rows of its output."""

    def deconv_rows_fwd(
        self, x: Tensor, weight: Tensor | None, stride: Pair, rows: Pair, cols: Pair
    ) -> Tensor:
        """Output[:, :, rows, cols]."""

    def deconv_rows_bwd(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor | None,
        stride: Pair,
        rows: Pair,
        cols: Pair,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the gradient of output[:, :, rows, cols] contributes to those of ``x`` and ``weight``."""


class Band(NamedTuple):
    """Rows ``first_row .. first_row + H' - 1`` of the upsampled scores of one image."""

    image: int
    first_row: int
    rows: Pair
    """The same rows, counted in the whole transposed convolution."""
    source: Tensor
    """The low-resolution scores of the image, 1×C'×h×w, in the accumulation type."""
    scores: Tensor
    """1×C×H'×W."""


def classes_of(scores: Tensor, weight: Tensor | None) -> int:
    """The number of channels of upsampled scores; ``weight``: a learned one."""
    channels = scores.shape[1]
    return channels if weight is None or is_depthwise(weight, channels) else weight.shape[1]


class LearnedUpsampling:
    """A transposed convolution and a crop, as `Resample.deconv` and a learned weight give them.

    Memory: a band holds at most 4 MiB of upsampled scores, 64 MiB on a GPU (one row where a row is larger). The
    sums of the bands' gradients have a fixed order, so that results have the same bits for any number of threads.
    """

    def __init__(
        self, deconvolution: Deconvolution, scores: Tensor, weight: Tensor, resample: Resample, size: Pair
    ) -> None:
        self.deconvolution = deconvolution
        self.scores, self.resample, self.size = scores, resample, size
        self.weight = weight.to(torch.promote_types(scores.dtype, torch.float32))
        self.classes = classes_of(scores, weight)
        self.columns = (resample.offset[1], resample.offset[1] + size[1])

    def bands(self) -> Iterator[Band]:
        """All bands, image by image, top to bottom."""
        height, width = self.size
        band_bytes = BAND_BYTES if self.scores.device.type == "cpu" else GPU_BAND_BYTES
        most = max(1, band_bytes // (self.classes * width * self.weight.element_size()))
        top, stride = self.resample.offset[0], self.resample.factor
        for image in range(self.scores.shape[0]):
            source = self.scores[image : image + 1].to(self.weight.dtype)
            for first_row in range(0, height, most):
                rows = (top + first_row, top + min(first_row + most, height))
                scores = self.deconvolution.deconv_rows_fwd(source, self.weight, stride, rows, self.columns)
                yield Band(image, first_row, rows, source, scores)

    def backward(self, band: Band, grad: Tensor, grad_scores: Tensor, grad_weight: Tensor) -> None:
        """Adds what the gradient of a band's scores gives for the low-resolution scores and for the weight."""
        settings = (self.resample.factor, band.rows, self.columns, (True, True))
        deconv_rows_bwd = self.deconvolution.deconv_rows_bwd
        source_grad, weight_grad = deconv_rows_bwd(grad, band.source, self.weight, *settings)
        assert source_grad is not None
        assert weight_grad is not None
        grad_scores[band.image] += source_grad[0]
        grad_weight += weight_grad
