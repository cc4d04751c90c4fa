"""Several label maps an image: data sets for networks that learn several tasks at once (section 5, SIFT Flow)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsIndex

import numpy as np

from fcnkern.data.files import FileDataset
from fcnkern.data.sample import IGNORE, DataError, Dataset, Sample, wanted_preset


class Tasks:
    """Data sets of the same images as one, whose labels are those of all of them, (T, H, W).

    Args:
        parts: by the names of the tasks, in the order of the labels.

    Attributes:
        tasks: numbers of classes by the names of the tasks.
        classes, palette: those of the tasks, one task behind the other.
        preset, published: of the first part.

    Raises: ValueError if the parts have not as many samples each, or more than 255 classes in all.
    """

    ignore_index = IGNORE

    def __init__(self, name: str, parts: Mapping[str, Dataset]) -> None:
        self.name, self._parts = name, dict(parts)
        self.tasks = {task: len(part.classes) for task, part in parts.items()}
        self.classes = [each for part in parts.values() for each in part.classes]
        sizes = {task: len(part) for task, part in parts.items()}
        if len(set(sizes.values())) != 1 or len(self.classes) > IGNORE:
            raise ValueError(
                f"parts of {name} must have as many samples each and at most {IGNORE} classes in all, they have "
                f"samples {sizes} and classes {self.tasks}"
            )
        self.palette = np.concatenate([part.palette for part in parts.values()])
        first = next(iter(parts.values()))
        self.preset, self.published = wanted_preset(first), getattr(first, "published", None)

    def __len__(self) -> int:
        return len(next(iter(self._parts.values())))

    def missing(self) -> list[str]:
        """The listed files that are not there: "image PATH", "label PATH"."""
        parts = [part for part in self._parts.values() if isinstance(part, FileDataset)]
        return list(dict.fromkeys(file for part in parts for file in part.missing()))

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Raises: as the parts do; DataError where they have other images."""
        first, *others = (part[index] for part in self._parts.values())
        for other in others:
            if other.name != first.name or other.label.shape != first.label.shape:
                raise DataError(
                    f"the tasks of {self.name} have other images at {index}: {first.name} {first.label.shape}, "
                    f"{other.name} {other.label.shape}"
                )
        labels = np.stack([first.label, *(other.label for other in others)])
        return Sample(first.image, labels, first.name)


def tasks_of(dataset: Dataset) -> dict[str, int]:
    """Numbers of classes by the names of the tasks, of a data set whose samples have several label maps; else {}.

    A data set has them as its attribute ``tasks``, which it may lack.
    """
    tasks: dict[str, int] = getattr(dataset, "tasks", {})
    return tasks


def numbered(label: np.ndarray, tasks: Mapping[str, int]) -> list[np.ndarray]:
    """The label maps (H, W) of a sample with classes numbered through those of all tasks; of one task its own."""
    if not tasks:
        return [label]
    firsts = np.cumsum([0, *tasks.values()])[:-1].astype(np.uint8)
    return [np.where(each == IGNORE, each, each + first) for each, first in zip(label, firsts, strict=True)]
