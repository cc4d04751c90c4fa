"""Errors that every backend raises in the same words."""

from __future__ import annotations


def label_error(
    name: str, value: int, position: tuple[int, int, int], num_classes: int, ignore_index: int | None
) -> ValueError:
    """A label outside the classes, at (image, row, column) of the tensor called ``name``."""
    n, y, x = position
    ignored = "" if ignore_index is None else f" or ignore_index={ignore_index}"
    return ValueError(
        f"{name}: label {value} at image {n}, row {y}, column {x}; wanted 0..{num_classes - 1}{ignored}"
    )
