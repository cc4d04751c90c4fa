"""Class weights of the loss from how often the classes occur."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fcnkern.data import Dataset, numbered, tasks_of
from fcnkern.engine.distributed import rank
from fcnkern.engine.progress import say

MOST_IMAGES = 200


def class_shares(dataset: Dataset, most_images: int = MOST_IMAGES) -> Tensor:
    """Share of each class among the labelled pixels, float64 C, of at most ``most_images`` images."""
    pixels, _ = _counts(dataset, most_images)
    return torch.from_numpy(pixels / max(pixels.sum(), 1))


def class_frequencies(dataset: Dataset, most_images: int = MOST_IMAGES) -> Tensor:
    """Share of each class among the pixels of the images it occurs in (SegNet's definition), float64 C.

    Looks at no more than ``most_images`` images, spread evenly. A class that never occurs has share 0.
    """
    pixels, area = _counts(dataset, most_images)
    return torch.from_numpy(pixels / np.maximum(area, 1))


def _counts(dataset: Dataset, most_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each class, and labelled pixels of the images it occurs in."""
    classes = len(dataset.classes)
    pixels, area = np.zeros(classes), np.zeros(classes)
    for index in np.linspace(0, len(dataset) - 1, min(most_images, len(dataset))).round().astype(int):
        for label in numbered(dataset[int(index)].label, tasks_of(dataset)):
            counts = np.bincount(label.reshape(-1), minlength=256)[:classes]
            pixels += counts
            area += (counts > 0) * counts.sum()
    return pixels, area


def _median_weights(frequency: Tensor) -> Tensor:
    """Median frequency ÷ frequency; a class that was not seen has the largest of these weights."""
    present = frequency > 0
    if not present.any():
        return torch.ones_like(frequency)
    least = frequency[present].min()
    return frequency[present].quantile(0.5) / torch.where(present, frequency, least)


def _tell_unseen(spec: str, classes: Sequence[str], frequency: Tensor) -> None:
    """Names the classes without pixels in the images that were looked at."""
    unseen = [name for name, share in zip(classes, frequency.tolist(), strict=True) if share == 0]
    if unseen and rank() == 0:
        say(
            f"class_weights {spec}: no pixels in the images looked at (at most {MOST_IMAGES}), largest weight: "
            f"{', '.join(unseen)}"
        )


def class_weights(spec: str, dataset: Dataset) -> Tensor | None:
    """Weights of the classes in the loss, float32 C, or None for none.

    Args:
        spec: ``none``; ``median`` (median frequency ÷ frequency, Eigen and Fergus 2015, SegNet), of each task its
            own; ``sqrt``, its square root, which is milder; or one number per class, separated by commas. Rare
            classes may be in none of the images looked at: they have the largest weight, and are told on stderr.

    Raises:
        ValueError: something else, or not one finite number of at least 0 per class, or only zeros.
    """
    if spec == "none":
        return None
    if spec in ("median", "sqrt"):
        sizes = list(tasks_of(dataset).values()) or [len(dataset.classes)]
        frequency = class_frequencies(dataset)
        _tell_unseen(spec, dataset.classes, frequency)
        weights = torch.cat([_median_weights(part) for part in frequency.split(sizes)])
        return (weights.sqrt() if spec == "sqrt" else weights).float()
    try:
        numbers = [float(part) for part in spec.split(",")]
    except ValueError:
        raise ValueError(f"class_weights must be none, median, sqrt or numbers, got {spec!r}") from None
    usable = all(0 <= number < math.inf for number in numbers) and any(numbers)
    if len(numbers) != len(dataset.classes) or not usable:
        raise ValueError(
            f"class_weights needs {len(dataset.classes)} finite numbers of at least 0, not all 0, got {spec!r}"
        )
    return torch.tensor(numbers)
