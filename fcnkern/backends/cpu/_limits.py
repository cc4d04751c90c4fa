"""What the C++ kernels for the CPU do not take."""

from __future__ import annotations

MAX_CLASSES = 65534


def check_classes(name: str, classes: int) -> None:
    """Refuses more classes than 16-bit labels hold beside two markers."""
    if classes > MAX_CLASSES:
        raise ValueError(f"{name}: the CPU kernels take at most {MAX_CLASSES} classes, got {classes}")
