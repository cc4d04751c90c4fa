"""How many classes the kernels take, and in what their labels fit."""

from __future__ import annotations

import torch

MAX_CLASSES = 65534
"""Labels have 16 bits in the kernels, beside two markers."""


def check_classes(backend: str, name: str, classes: int) -> None:
    """Refuses more classes than that; ``backend`` and ``name`` of the argument are for the message: ValueError."""
    if classes > MAX_CLASSES:
        raise ValueError(f"{name}: the {backend} kernels take at most {MAX_CLASSES} classes, got {classes}")


def narrowest_label(classes: int) -> torch.dtype:
    """The smallest type of labels that holds every class."""
    return torch.uint8 if classes <= 256 else torch.int16 if classes <= 2**15 else torch.int32
