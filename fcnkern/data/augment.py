"""The paper's augmentation, and crops: the same for the same (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fcnkern.data.preprocess import MEAN_LOG_DEPTH, presets
from fcnkern.data.sample import IGNORE, Sample

FILL = (123, 117, 104)
"""RGB of what a window shows outside the image: ImageNet's mean, nearly 0 after the presets of its networks."""
_FILL_BY_CHANNELS = {
    1: (MEAN_LOG_DEPTH,),
    3: FILL,
    4: (*FILL, MEAN_LOG_DEPTH),
    6: (*FILL, *map(round, presets["nyud-hha"].mean)),
}


def window(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """The part of the sample in a window that may reach over its border: `FILL` and `IGNORE` there."""
    h, w, channels = sample.image.shape
    image = np.empty((height, width, channels), sample.image.dtype)
    image[:] = _FILL_BY_CHANNELS[channels]
    label = np.full((*sample.label.shape[:-2], height, width), IGNORE, np.uint8)
    y0, y1, x0, x1 = max(top, 0), min(top + height, h), max(left, 0), min(left + width, w)
    if y0 < y1 and x0 < x1:
        rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        image[rows, columns] = sample.image[y0:y1, x0:x1]
        label[..., rows, columns] = sample.label[..., y0:y1, x0:x1]
    return Sample(image, label, sample.name)


def mirror(sample: Sample) -> Sample:
    """Left and right exchanged."""
    return Sample(sample.image[:, ::-1].copy(), sample.label[..., ::-1].copy(), sample.name)


def rescale(sample: Sample, factor: float) -> Sample:
    """Both sides times `factor` (at least 1 pixel): the image bilinear, the label nearest."""
    h, w = sample.image.shape[:2]
    size = max(1, round(w * factor)), max(1, round(h * factor))
    channels = [sample.image] if sample.image.shape[2] == 3 else np.moveaxis(sample.image, 2, 0)
    resized = [np.array(Image.fromarray(c).resize(size, Image.Resampling.BILINEAR)) for c in channels]
    maps = [
        np.array(Image.fromarray(each).resize(size, Image.Resampling.NEAREST))
        for each in sample.label.reshape(-1, h, w)
    ]
    label = np.stack(maps).reshape(*sample.label.shape[:-2], *maps[0].shape)
    return Sample(np.dstack(resized), label, sample.name)


@dataclass(frozen=True)
class Augment:
    """Random changes of a training sample; each is off by default but the mirroring.

    mirror: with probability 1/2. scale: (least, most) factor of both sides, log-uniform. translate: largest
    shift in pixels in each direction (the paper: 32); the size stays. crop: (height, width) of a random part;
    smaller images are padded. pipeline: any function of a sample and a seed, such as a `Pipeline`. Order: mirror,
    scale, translate, crop, pipeline.

    Raises: ValueError for a bad argument.
    """

    seed: int = 0
    mirror: bool = True
    scale: tuple[float, float] | None = None
    translate: int = 0
    crop: tuple[int, int] | None = None
    pipeline: Callable[[Sample, int], Sample] | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, wanted a non-negative integer")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {self.scale}, wanted (least, most) with 0 < least <= most")
        if self.translate < 0:
            raise ValueError(f"translate is {self.translate}, wanted pixels >= 0")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"crop is {self.crop}, wanted (height, width) of at least 1")

    def __call__(self, sample: Sample, epoch: int, index: int) -> Sample:
        """A changed copy: a pure function of the sample, seed, epoch and index."""
        rng = np.random.default_rng([self.seed, epoch, index])
        if self.mirror and rng.random() < 0.5:
            sample = mirror(sample)
        if self.scale is not None:
            sample = rescale(sample, float(np.exp(rng.uniform(*np.log(self.scale)))))
        if self.translate:
            dy, dx = rng.integers(-self.translate, self.translate + 1, 2)
            sample = window(sample, int(dy), int(dx), *sample.image.shape[:2])
        if self.crop is not None:
            top, left = (
                _offset(rng, have, want) for have, want in zip(sample.image.shape[:2], self.crop, strict=True)
            )
            sample = window(sample, top, left, *self.crop)
        if self.pipeline is not None:
            sample = self.pipeline(sample, int(rng.integers(2**32)))
        return sample


def _offset(rng: np.random.Generator, have: int, want: int) -> int:
    """Anywhere inside when the image is larger than the window, else 0: padded below and on the right."""
    return int(rng.integers(0, have - want + 1)) if have > want else 0
