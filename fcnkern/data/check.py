"""What is in a data set, and what is wrong with it: every image and every label is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from fcnkern.data.files import FileDataset, is_turned
from fcnkern.data.loader import prefetch
from fcnkern.data.registry import dataset_splits, open_dataset
from fcnkern.data.sample import IGNORE, DataError, Dataset, Sample
from fcnkern.data.tasks import numbered, tasks_of

DISJOINT = ("train", "val", "test")


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        images: how many it lists. published: how many the publisher's release has, None where that is not known.
        sizes: how many images of each (height, width) could be read.
        pixels: int64 (C), pixels of each class; void: pixels without one.
        in_images: int64 (C), in how many images each class occurs.
        broken: what cannot be used, a message each, naming the file.
        turned: images whose EXIF orientation is not applied; their labels have to lie as the stored pixels do.
    """

    split: str
    classes: list[str] = field(default_factory=list)
    images: int = 0
    published: int | None = None
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    in_images: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    void: int = 0
    broken: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON takes it; frequencies are shares of the pixels that have a class."""
        total = int(self.pixels.sum())
        rows = zip(self.classes, self.pixels.tolist(), self.in_images.tolist(), strict=True)
        return {
            "split": self.split,
            "images": self.images,
            "published": self.published,
            "sizes": {f"{h}x{w}": count for (h, w), count in self.sizes.most_common()},
            "void": self.void / (total + self.void) if total + self.void else None,
            "classes": {
                name: {"pixels": n, "frequency": n / total if total else None, "images": seen}
                for name, n, seen in rows
            },
            "broken": self.broken,
            "turned": self.turned,
        }


@dataclass
class Report:
    """All splits, and what is wrong between them: names that training and test sets share."""

    spec: str
    splits: list[SplitReport]
    shared: list[str]

    @property
    def sound(self) -> bool:
        """Whether everything could be read and no name is in two of train, val and test."""
        return not self.shared and not any(report.broken for report in self.splits)

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "data": self.spec,
            "sound": self.sound,
            "splits": [report.record() for report in self.splits],
            "shared": self.shared,
        }


def check_data(
    spec: str,
    splits: Sequence[str] | None = None,
    workers: int = 2,
    after_each: Callable[[], object] = lambda: None,
) -> Report:
    """Reads everything of the data set that `spec` names, in the given splits or in all that there are.

    Missing, damaged and mislabelled files do not end it: they are in the report. `after_each` is called after every
    image.

    Raises: ValueError for a `spec` that names no data set; FileNotFoundError, DataError where not even the splits can
    be told; RuntimeError without a library that the files need.
    """
    reports, names = [], {}
    for split in dataset_splits(spec) if splits is None else splits:
        report = SplitReport(split)
        reports.append(report)
        try:
            dataset = open_dataset(spec, split)
        except (FileNotFoundError, DataError) as error:
            report.broken.append(str(error))
            continue
        names[split] = _read_all(dataset, report, workers, after_each)
    return Report(spec, reports, _shared(names))


def _read_all(
    dataset: Dataset, report: SplitReport, workers: int, after_each: Callable[[], object]
) -> set[str]:
    """Fills the report; returns the names of the samples that could be read."""
    report.classes, report.images = list(dataset.classes), len(dataset)
    report.published = getattr(dataset, "published", None)
    if isinstance(dataset, FileDataset):
        report.turned = [str(pair.image) for pair in dataset.pairs if is_turned(pair.image)]
    count = len(report.classes)
    report.pixels, report.in_images = np.zeros(count, np.int64), np.zeros(count, np.int64)
    names = set()

    def load(index: int) -> Sample | str:
        try:
            return dataset[index]
        except (OSError, DataError) as error:
            return str(error)

    with closing(prefetch(load, range(len(dataset)), depth=2 * workers, workers=workers)) as samples:
        for sample in samples:
            after_each()
            if isinstance(sample, str):
                report.broken.append(sample)
                continue
            if sample.name in names:
                report.broken.append(f"{dataset.name} lists {sample.name} more than once")
            names.add(sample.name)
            _count(sample, numbered(sample.label, tasks_of(dataset)), report)
    return names


def _count(sample: Sample, labels: list[np.ndarray], report: SplitReport) -> None:
    for label in labels:
        counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)
        report.pixels += counts[: len(report.pixels)]
        report.in_images += counts[: len(report.pixels)] > 0
        report.void += int(counts[IGNORE])
    report.sizes[sample.image.shape[0], sample.image.shape[1]] += 1


def _shared(names: dict[str, set[str]]) -> list[str]:
    found = []
    for a, b in combinations([split for split in DISJOINT if split in names], 2):
        if common := sorted(names[a] & names[b]):
            found.append(f"{len(common)} names are both in {a} and in {b}: {', '.join(common[:3])}")
    return found
