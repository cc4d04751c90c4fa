"""`upsample_argmax` with the CUDA C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._arguments import LABEL_TYPES
from fcnkern.backends._bands import LearnedUpsampling
from fcnkern.backends.cuda import upsample_add
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.backends.cuda._label_tiles import label_tiles
from fcnkern.resample import Pair, Resample


def upsample_argmax(
    scores: Tensor,
    weight: Tensor | None,
    resample: Resample,
    size: Pair,
    out_dtype: torch.dtype,
    confidence: bool,
) -> tuple[Tensor, Tensor | None]:
    """(labels, softmax probability of the label or None), both (N, H, W) for ``size`` (H, W).

    Scores are upsampled in fp32 and never stored upsampled, save in bands of rows with a learned ``weight``. Ties
    go to the lowest class; NaN counts as the largest score, the first one wins. No memory beside the results.

    Raises:
        ValueError: too many classes.
    """
    shape = (scores.shape[0], *size)
    labels = torch.empty(shape, dtype=out_dtype, device=scores.device)
    probability = torch.empty(shape, dtype=torch.float32, device=scores.device) if confidence else None
    if labels.numel() == 0:
        return labels, probability
    if weight is None:
        upsample_argmax_fwd(scores, resample, labels, probability)
    else:
        _learned(scores, weight, resample, labels, probability)
    return labels, probability


def _learned(
    scores: Tensor, weight: Tensor, resample: Resample, labels: Tensor, probability: Tensor | None
) -> None:
    size = (labels.shape[1], labels.shape[2])
    for band in LearnedUpsampling(upsample_add, scores, weight, resample, size).bands():
        images = slice(band.image, band.image + 1)
        rows = slice(band.first_row, band.first_row + band.scores.shape[2])
        part = None if probability is None else probability[images, rows]
        upsample_argmax_fwd(band.scores, Resample.identity(), labels[images, rows], part)


def upsample_argmax_fwd(
    scores: Tensor, resample: Resample, labels: Tensor, probability: Tensor | None = None
) -> None:
    """Fills contiguous ``labels`` (N, H, W) of any integer type, and ``probability``.

    Raises:
        ValueError: too many classes.
    """
    tiles = label_tiles(scores, resample, (labels.shape[1], labels.shape[2]))
    address = 0 if probability is None else probability.data_ptr()
    kernels.upsample_argmax_fwd(
        tiles, labels.data_ptr(), LABEL_TYPES[labels.dtype], address, stream_of(scores)
    )
