"""PASCAL-Context (Mottaghi et al. 2014) with the authors' 59 classes, with or without the background."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnkern.data.files import FileDataset, Pair
from fcnkern.data.labels import label_table
from fcnkern.data.lists import find_root, read_lines
from fcnkern.data.matfile import need_scipy, read_mat
from fcnkern.data.palette import voc_palette
from fcnkern.data.sample import IGNORE

NUMBERS = {
    "aeroplane": 2, "bicycle": 23, "bird": 25, "boat": 31, "bottle": 34, "bus": 45, "car": 59, "cat": 65, "chair": 72,
    "cow": 98, "diningtable": 397, "dog": 113, "horse": 207, "motorbike": 258, "person": 284, "pottedplant": 308,
    "sheep": 347, "sofa": 368, "train": 416, "tvmonitor": 427, "bag": 9, "bed": 18, "bench": 22, "book": 33,
    "building": 44, "cabinet": 46, "ceiling": 68, "clothes": 80, "computer": 85, "cup": 104, "door": 115,
    "fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189, "keyboard": 220,
    "light": 232, "mountain": 259, "mouse": 260, "curtain": 105, "platform": 296, "sign": 355, "plate": 295,
    "road": 324, "rock": 326, "shelves": 349, "sidewalk": 354, "sky": 360, "snow": 366, "bedcloth": 19, "track": 415,
    "tree": 420, "truck": 424, "wall": 440, "water": 445, "window": 454, "wood": 458,
}  # fmt: skip
"""The 59 classes in the authors' order, each with its number among the 459 of labels.txt."""

HIGHEST = 459
LISTS = "ImageSets/Main"
YEARS = ("VOC2010", "VOCdevkit/VOC2010")
PUBLISHED = {"train": 4998, "val": 5105}


def context(
    path: str | Path, split: str = "train", voc: str | Path | None = None, classes: int | str = 60
) -> FileDataset:
    """PASCAL-Context: trainval/ID.mat with the variable ``LabelMap`` (1..459), images and lists of VOC2010.

    Args:
        voc: the folder VOC2010 or one above it; by default it is looked for in `path`. Splits are the lists of its
            ImageSets/Main: train and val.
        classes: 60, as the paper trains and scores: class 0 is the background, every one of the 459 that is not among
            the 59; or 59: the background is no class.

    Raises: ValueError for another number of classes; FileNotFoundError, DataError naming what is missing or
    malformed; RuntimeError without scipy.
    """
    count = str(classes)
    if count not in ("59", "60"):
        raise ValueError(f"classes is {classes!r}, wanted 60 (with background) or 59")
    need_scipy()
    root, year = find_root(path, "trainval"), _year(path, voc)
    pairs = [
        Pair(i, year / "JPEGImages" / f"{i}.jpg", root / "trainval" / f"{i}.mat")
        for i in read_lines(year / LISTS / f"{split}.txt")
    ]
    names = [*NUMBERS] if count == "59" else ["background", *NUMBERS]
    return FileDataset(
        f"context{count}-{split}",
        names,
        voc_palette(60)[60 - len(names) :],
        pairs,
        _table(background=count == "60"),
        load_label=read_label_map,
        published=PUBLISHED.get(split),
    )


def context_splits(path: str | Path, voc: str | Path | None = None, classes: int | str = 60) -> list[str]:
    """Those of train and val that VOC2010's lists have."""
    lists = _year(path, voc) / LISTS
    return [split for split in PUBLISHED if (lists / f"{split}.txt").is_file()]


def read_label_map(path: Path) -> np.ndarray:
    """The stored label, 1..459."""
    return read_mat(path, "LabelMap")


def _year(path: str | Path, voc: str | Path | None) -> Path:
    return find_root(path if voc is None else voc, LISTS, YEARS)


def _table(background: bool) -> np.ndarray:
    first = 1 if background else 0
    named = {number: first + k for k, number in enumerate(NUMBERS.values())}
    return label_table(dict.fromkeys(range(HIGHEST + 1), 0 if background else IGNORE) | named)
