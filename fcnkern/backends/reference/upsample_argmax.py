"""upsample_argmax in plain PyTorch, with full-resolution scores."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.backends.reference._resample import upsample
from fcnkern.resample import Pair, Resample


def upsample_argmax(
    scores: Tensor,
    weight: Tensor | None,
    resample: Resample,
    size: Pair,
    out_dtype: torch.dtype,
    confidence: bool,
) -> tuple[Tensor, Tensor | None]:
    """(labels, probability of the label or None)."""
    dtype = accumulation_type(scores.dtype)
    logits = upsample(scores.to(dtype), None if weight is None else weight.to(dtype), resample, size)
    labels = logits.argmax(1)
    if not confidence:
        return labels.to(out_dtype), None
    probability = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    return labels.to(out_dtype), probability
