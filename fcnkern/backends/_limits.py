"""How many classes the kernels take."""

from __future__ import annotations

MAX_CLASSES = 65534
"""Labels have 16 bits in the kernels, beside two markers."""


def check_classes(backend: str, name: str, classes: int) -> None:
    """Refuses more classes than that; ``backend`` and ``name`` of the argument are for the message: ValueError."""
    if classes > MAX_CLASSES:
        raise ValueError(f"{name}: the {backend} kernels take at most {MAX_CLASSES} classes, got {classes}")
