"""`upsample_argmax` with the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.backends._arguments import LABEL_TYPES, upsampling
from fcnkern.backends._bands import LearnedUpsampling
from fcnkern.backends._limits import check_classes
from fcnkern.backends.cpu import upsample_add
from fcnkern.backends.cpu._extension import kernels
from fcnkern.backends.cpu._memory import in_huge_pages
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

    Scores are upsampled in fp32 (fp64 for fp64) and never stored upsampled, save in bands of rows with a learned
    ``weight``. Ties go to the lowest class; NaN counts as the largest score, the first one wins.

    Raises:
        ValueError: too many classes.
    """
    labels = in_huge_pages(torch.empty(scores.shape[0], *size, dtype=out_dtype, device=scores.device))
    probability = None
    if confidence:
        probability = in_huge_pages(torch.empty_like(labels, dtype=accumulation_type(scores.dtype)))
    if weight is None:
        _label(scores, resample, size, labels, probability)
        return labels, probability
    for band in LearnedUpsampling(upsample_add, scores, weight, resample, size).bands():
        rows = slice(band.first_row, band.first_row + band.scores.shape[2])
        part = None if probability is None else probability[band.image : band.image + 1, rows]
        band_size = (band.scores.shape[2], size[1])
        _label(band.scores, Resample.identity(), band_size, labels[band.image : band.image + 1, rows], part)
    return labels, probability


def _label(
    scores: Tensor, resample: Resample, size: Pair, labels: Tensor, probability: Tensor | None
) -> None:
    """Fills contiguous ``labels`` and ``probability``."""
    check_classes("CPU", "scores", scores.shape[1])
    kernels.upsample_argmax(
        upsampling(scores, resample, size),
        labels.data_ptr(),
        LABEL_TYPES[labels.dtype],
        0 if probability is None else probability.data_ptr(),
        torch.get_num_threads(),
    )
