"""What a data set is here: a sequence of samples with class names and colours."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Protocol, SupportsIndex

import numpy as np

IGNORE = 255
"""Label of the pixels that have no class: neither trained on nor scored."""


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    image: uint8 (H, W, 3), RGB; of NYUDv2 also uint8 (H, W, 6), RGB and HHA, or float32 (H, W, 1), log depth, or
        (H, W, 4), RGB and log depth.
    label: uint8 (H, W), class indices, `IGNORE` where there is none; of several tasks (T, H, W), see `Tasks`.
    name: unique in its data set, usable as a file stem (may hold slashes).
    """

    image: np.ndarray
    label: np.ndarray
    name: str


class Dataset(Protocol):
    """A map-style, picklable data set. `palette` is uint8 (C, 3), RGB, one row a class."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> list[str]: ...

    @property
    def palette(self) -> np.ndarray: ...

    @property
    def ignore_index(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: SupportsIndex) -> Sample: ...


def wanted_preset(dataset: Dataset) -> str | None:
    """Name of the preset for images that are no colour photographs, else None: any of three channels prepares these.

    A data set has it as its attribute ``preset``, which it may lack.
    """
    preset: str | None = getattr(dataset, "preset", None)
    return preset


class DataError(ValueError):
    """A file of a data set is not what it should be; the message names the file."""


def checked_index(index: SupportsIndex, length: int, name: str) -> int:
    """`index` as an int in [0, length), negative ones counted from the end as a list does.

    Raises: IndexError (which also ends a `for` loop over a data set).
    """
    i = operator.index(index)
    if not -length <= i < length:
        raise IndexError(f"{name} has {length} samples; there is no sample {i}")
    return i % length
