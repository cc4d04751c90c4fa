"""Learned upsampling in horizontal bands of outputs, so that no full-resolution scores exist at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fcnkern.ops._checks import dense_format
from fcnkern.ops._loss_call import LossCall
from fcnkern.ops.upsample_add import outputs_of
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
        self.classes = outputs_of(scores, weight)
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

    def zero_grads(self, call: LossCall) -> tuple[Tensor | None, Tensor | None]:
        """Gradients for the low-resolution scores and for the weight, where the call needs them, to be summed up."""
        grad_scores = grad_weight = None
        if call.need_grad:
            layout = dense_format(self.scores)
            grad_scores = torch.zeros_like(self.scores, dtype=self.weight.dtype, memory_format=layout)
        if call.need_weight_grad:
            grad_weight = torch.zeros_like(self.weight, memory_format=torch.contiguous_format)
        return grad_scores, grad_weight

    def backward(
        self, band: Band, grad: Tensor, grad_scores: Tensor | None, grad_weight: Tensor | None
    ) -> None:
        """Adds what the gradient of a band's scores gives for the low-resolution scores and for the weight."""
        needs = (grad_scores is not None, grad_weight is not None)
        settings = (self.resample.factor, band.rows, self.columns, needs)
        of_source, of_weight = self.deconvolution.deconv_rows_bwd(grad, band.source, self.weight, *settings)
        if grad_scores is not None and of_source is not None:
            grad_scores[band.image] += of_source[0]
        if grad_weight is not None and of_weight is not None:
            grad_weight += of_weight
