"""Checks shared by the operations that read low-resolution scores through a `Resample`."""

from __future__ import annotations

from torch import Tensor

from fcnkern.ops import _checks as checks
from fcnkern.resample import Pair, Resample


def check_resampled(scores: Tensor, weight: Tensor | None, resample: Resample, out_size: Pair | None) -> None:
    """Refuses scores, a learned weight or a resampling that do not fit each other or the output size.

    Raises:
        TypeError, ValueError: naming the argument, what came and what was wanted.
    """
    checks.check_images("scores", scores, 4, checks.FLOATS)
    if not isinstance(resample, Resample):
        raise TypeError(f"resample must be a Resample, got {type(resample).__name__}")
    if weight is not None:
        checks.check_images("weight", weight, 4, checks.FLOATS)
        checks.check_same("weight", weight, "scores", scores)
        if resample.kind != "deconv":
            raise ValueError(f"weight goes with Resample.deconv(stride, crop), got {resample.spec}")
        if weight.shape[0] != scores.shape[1]:
            raise ValueError(
                f"weight must have {scores.shape[1]} input channels (those of scores), "
                f"got {checks.shape_text(weight)}"
            )
    if out_size is not None:
        kernel = None if weight is None else (weight.shape[2], weight.shape[3])
        resample.check((scores.shape[2], scores.shape[3]), out_size, kernel)
