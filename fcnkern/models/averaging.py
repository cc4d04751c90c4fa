"""Class probabilities averaged over mirrored and resized copies of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as T
from torch import Tensor

from fcnkern._tensors import accumulation_type


def of_copies(scales: Sequence[float], flip: bool, tile: object) -> bool:
    """Whether `scales` and `flip` ask for other copies of the images than themselves.

    Raises:
        ValueError: they do, and for tiles too; `scales` is one number.
    """
    if isinstance(scales, int | float):
        raise ValueError(f"scales must be one or more positive finite numbers, got {scales!r}")
    several = flip or tuple(scales) != (1.0,)
    if several and tile is not None:
        raise ValueError(f"tile excludes scales and flip, got {tile}, {tuple(scales)} and {flip}")
    return several


def averaged_probabilities(
    logits: Callable[[Tensor], Tensor], x: Tensor, scales: Sequence[float], flip: bool
) -> Tensor:
    """The mean of the softmax over copies of the images, each taken back to their size and orientation.

    Args:
        logits: images N,3,h,w -> logits N,C,h,w.
        x: images N,3,H,W.
        scales: sizes of the copies relative to the images; bilinear, with antialiasing where they shrink.
        flip: each copy also mirrored left to right.

    Returns:
        N,C,H,W, at full resolution, float32 where logits are of half precision.

    Raises:
        ValueError: no scale, or one that is no positive finite number.
    """
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ValueError(f"scales must be one or more positive finite numbers, got {tuple(scales)!r}")
    total: Tensor | None = None
    for scale in scales:
        copy = x if scale == 1 else _resized(x, [max(1, round(side * scale)) for side in x.shape[2:]])
        for mirrored in (False, True) if flip else (False,):
            found = logits(copy.flip(3) if mirrored else copy)
            probabilities = found.to(accumulation_type(found.dtype)).softmax(1)
            probabilities = probabilities.flip(3) if mirrored else probabilities
            if scale != 1:
                probabilities = _resized(probabilities, list(x.shape[2:]))
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(scales) * (1 + flip))


def _resized(x: Tensor, size: list[int]) -> Tensor:
    # PyTorch resizes with antialiasing in float32 and float64 alone.
    wide = x.to(accumulation_type(x.dtype))
    return T.interpolate(wide, size, mode="bilinear", align_corners=False, antialias=True).to(x.dtype)
