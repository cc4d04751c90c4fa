"""Images that cannot be read, left out of a run on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsIndex

import numpy as np

from fcnkern.data import (
    DataError,
    Dataset,
    FileDataset,
    Sample,
    Tasks,
    channels_of,
    image_dtype,
    tasks_of,
    wanted_preset,
)

BLANK = (32, 32)
NAMED = 5


def check_present(dataset: Dataset) -> None:
    """Refuses a data set of which listed files are missing, before hours of training lead to the first of them.

    Raises:
        FileNotFoundError: naming them.
    """
    missing = dataset.missing() if isinstance(dataset, FileDataset | Tasks) else []
    if missing:
        named = ", ".join(missing[:NAMED]) + ", …" * (len(missing) > NAMED)
        raise FileNotFoundError(f"{dataset.name} lists what is missing, {len(missing)} in all: {named}")


class SkipBroken:
    """A data set without its samples that are missing or damaged.

    For training the next sample that can be read takes the place of a broken one, so that batches keep their size
    and depend on nothing but the files. For scoring (``blank``) an image without labels does, which counts nowhere.

    Args:
        report: told once of each broken sample, in the words of the error, which names the file.

    Attributes:
        broken: error of each broken sample met so far, by index.
    """

    def __init__(self, dataset: Dataset, *, blank: bool, report: Callable[[str], None]) -> None:
        self._dataset, self._blank, self._report = dataset, blank, report
        self.name, self.ignore_index = dataset.name, dataset.ignore_index
        self.classes, self.palette = dataset.classes, dataset.palette
        self.preset, self.tasks = wanted_preset(dataset), tasks_of(dataset)
        self.broken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Raises: IndexError; DataError where no sample of the set can be read."""
        first = range(len(self))[index]
        for ahead in range(len(self)):
            place = (first + ahead) % len(self)
            try:
                return self._dataset[place]
            except (DataError, OSError) as error:
                self._note(place, str(error))
            if self._blank:
                size = (len(self.tasks), *BLANK) if self.tasks else BLANK
                label = np.full(size, self.ignore_index, np.uint8)
                channels = channels_of(self.preset)
                image = np.zeros((*BLANK, channels), image_dtype(channels))
                return Sample(image, label, f"broken_{place}")
        raise DataError(f"{self.name} has no image that can be read; the first: {self.broken[first]}")

    def _note(self, place: int, error: str) -> None:
        if place not in self.broken:
            self.broken[place] = error
            self._report(f"skipped: {error}")
