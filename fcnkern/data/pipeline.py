"""Augmentation by albumentations: pipelines in its own files, applied to image and labels together.

Of the libraries that transform both together this one draws from a generator of its own, which is seeded for every
sample here: a run that is resumed sees the same images, and loading ahead in threads disturbs nothing. kornia and
torchvision draw from torch's global generator, as dropout and loss sampling do in the thread that trains.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from fcnkern.data.sample import DataError, Sample

FORMATS = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}


class Pipeline:
    """An albumentations transform (of version 2), such as a ``Compose``, for `Augment`.

    Labels are moved by one for the transform, so that whatever it fills with its default, 0, comes back as `IGNORE`.

    Raises: TypeError if `transform` cannot be called, or not be seeded.
    """

    def __init__(self, transform: Any, name: str = "pipeline") -> None:
        if not callable(transform) or not hasattr(transform, "set_random_seed"):
            raise TypeError(f"transform is {type(transform).__name__}, wanted albumentations' Compose")
        self._transform, self._name = transform, name
        self._lock = Lock()  # the transform holds its generator: one thread at a time

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """A changed copy: a pure function of the sample and of seed, 0 <= seed < 2**32.

        Raises: ValueError if the transform leaves no image uint8 (H, W, 3) with labels uint8 (H, W).
        """
        several = sample.label.ndim > 2
        mask = np.moveaxis(sample.label, 0, 2) if several else sample.label
        with self._lock:
            self._transform.set_random_seed(seed)
            # uint8 wraps around: no class, 255, is 0 meanwhile.
            changed = self._transform(image=sample.image, mask=np.ascontiguousarray(mask) + np.uint8(1))
        image, label = changed["image"], changed["mask"]
        for what, array, shape in (
            ("image", image, (*label.shape[:2], 3)),
            ("labels", label, (*label.shape[:2], *mask.shape[2:])),
        ):
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape != shape:
                raise ValueError(
                    f"{self._name} makes {what} {array.dtype} of shape {tuple(array.shape)}, wanted uint8 {shape}: "
                    "leave out normalisation and conversion to tensors"
                )
        label = np.moveaxis(label, 2, 0) if several else label
        return Sample(np.ascontiguousarray(image), np.ascontiguousarray(label) - np.uint8(1), sample.name)


def load_pipeline(path: str | Path) -> Pipeline:
    """The pipeline in a file that ``albumentations.save`` wrote, .json or .yaml.

    Raises: FileNotFoundError; ValueError for another suffix; DataError if it is no such file; RuntimeError without
    albumentations.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"augmentation {path} has the suffix {path.suffix!r}, wanted .json or .yaml")
    if not path.is_file():
        raise FileNotFoundError(f"augmentation {path} does not exist")
    albumentations = need_albumentations()
    try:
        transform = albumentations.load(path, data_format=FORMATS[path.suffix.lower()])
    except Exception as error:
        # What is wrong in a file shows anywhere in the constructors that it names.
        raise DataError(f"augmentation {path} is no pipeline of albumentations: {error}") from error
    return Pipeline(transform, str(path))


def need_albumentations() -> Any:
    """The module. Raises: RuntimeError telling how to install it."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network for news
    try:
        import albumentations
    except ImportError as error:
        raise RuntimeError(
            "augmentation pipelines need albumentations: pip install 'fcnkern[augment]'"
        ) from error
    return albumentations
