"""Samples of any sizes -> one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.data.preprocess import Preprocess
from fcnkern.data.sample import IGNORE, Sample


class Batch(NamedTuple):
    """images: float32 (N, channels, H, W), 0 in the padding; labels: uint8 (N, H, W), `IGNORE` in the padding.

    Labels of several tasks are (N, T, H, W).
    names and sizes, (height, width) of each image: `prediction[i, :h, :w]` is the part that is image i's.
    """

    images: Tensor
    labels: Tensor
    names: list[str]
    sizes: list[tuple[int, int]]


def collate(samples: Sequence[Sample], preprocess: Preprocess) -> Batch:
    """Preprocess and stack, each sample in the top left corner, padded below and on the right to the largest.

    Raises: ValueError for no samples, or a label whose size is not its image's.
    """
    if not samples:
        raise ValueError("collate got no samples, wanted at least one")
    tasks = samples[0].label.shape[:-2]
    for s in samples:
        if s.label.shape != (*tasks, *s.image.shape[:2]):
            raise ValueError(
                f"sample {s.name!r} has a label of shape {s.label.shape}, its image is {s.image.shape[:2]}"
            )
    sizes = [(s.image.shape[0], s.image.shape[1]) for s in samples]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = torch.zeros(len(samples), len(preprocess.mean), height, width)
    labels = torch.full((len(samples), *tasks, height, width), IGNORE, dtype=torch.uint8)
    for i, (s, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
        images[i, :, :h, :w] = preprocess(s.image)
        labels[i, ..., :h, :w] = torch.tensor(s.label)
    return Batch(images, labels, [s.name for s in samples], sizes)
