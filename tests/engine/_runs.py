"""Runs small enough for a test: four-channel networks on thumbnail scenes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fcnkern.data import IGNORE, Sample
from fcnkern.engine import TrainSettings, start_run
from fcnkern.engine.log import read_log
from fcnkern.engine.trainer import Trainer

TINY: dict[str, Any] = {
    "data": "scenes:count=6,size=24x32",
    "val_split": "none",
    "width": 0.01,
    "iterations": 4,
    "warmup": 0,
    "lr": 0.02,
}


def tiny(out: Path, **settings: Any) -> Trainer:
    """A new tiny run."""
    return start_run(TrainSettings(**{**TINY, **settings}), out, quiet=True)


def losses(out: Path) -> list[tuple[str, str]]:
    """(iteration, loss) of the training rows of a log, as written: equal text is equal bits."""
    return [(row["iteration"], row["loss"]) for row in read_log(out / "log.csv") if row["split"] == "train"]


def stopping_after(checks: int) -> Callable[[], Any]:
    """In place of ``stop_requested``: SIGTERM has come at the given check, over all stages."""
    done = 0

    def stop() -> int:
        nonlocal done
        done += 1
        return signal.SIGTERM if done >= checks else 0

    @contextmanager
    def requested() -> Iterator[Callable[[], int]]:
        yield stop

    return requested


class Images:
    """A data set from arrays in memory."""

    name, ignore_index = "images", IGNORE

    def __init__(self, labels: list[np.ndarray], classes: int = 3) -> None:
        self.labels = labels
        self.classes = [f"class {index}" for index in range(classes)]
        self.palette = np.arange(3 * classes, dtype=np.uint8).reshape(classes, 3)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        label = self.labels[index]
        image = np.random.default_rng(int(index)).integers(0, 256, (*label.shape, 3), dtype=np.uint8)
        return Sample(image, label, f"image_{index}")
