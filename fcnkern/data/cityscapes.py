"""Cityscapes (Cordts et al. 2016) with its 19 evaluated classes, and whatever else is laid out like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnkern.data.files import FileDataset, Pair
from fcnkern.data.labels import label_table, plain
from fcnkern.data.lists import contents, find_root
from fcnkern.data.sample import IGNORE

CLASSES = {
    "road": (7, 128, 64, 128), "sidewalk": (8, 244, 35, 232), "building": (11, 70, 70, 70),
    "wall": (12, 102, 102, 156), "fence": (13, 190, 153, 153), "pole": (17, 153, 153, 153),
    "traffic light": (19, 250, 170, 30), "traffic sign": (20, 220, 220, 0), "vegetation": (21, 107, 142, 35),
    "terrain": (22, 152, 251, 152), "sky": (23, 70, 130, 180), "person": (24, 220, 20, 60), "rider": (25, 255, 0, 0),
    "car": (26, 0, 0, 142), "truck": (27, 0, 0, 70), "bus": (28, 0, 60, 100), "train": (31, 0, 80, 100),
    "motorcycle": (32, 0, 0, 230), "bicycle": (33, 119, 11, 32),
}  # fmt: skip
"""The evaluated classes in the order of their train ids: number in labelIds, and colour R, G, B."""

HIGHEST = 33
IMAGES, TRUTHS = "leftImg8bit", "gtFine"
PUBLISHED = {"train": 2975, "val": 500, "test": 1525}


def cityscapes(path: str | Path, split: str = "train") -> FileDataset:
    """leftImg8bit/SPLIT/CITY/STEM_leftImg8bit.png and gtFine/SPLIT/CITY/STEM_gtFine_labelIds.png.

    labelIds hold 0..33, of which 19 are evaluated and the others no class. Where a split has none of them its
    labelTrainIds are read: 0..18, and 255 for no class. The published labels of test are blank.

    Raises: FileNotFoundError naming what is missing.
    """
    root = find_root(path, IMAGES, ("cityscapes",))
    folder = root / IMAGES / split
    images = sorted(folder.glob(f"*/*_{IMAGES}.png"))
    if not images:
        there = contents(folder if folder.is_dir() else root / IMAGES)
        raise FileNotFoundError(f"{folder} has no CITY/*_{IMAGES}.png; there is {there}")
    by_id = any((root / TRUTHS / split).glob(f"*/*_{TRUTHS}_labelIds.png"))
    suffix = "labelIds" if by_id else "labelTrainIds"
    pairs = []
    for image in images:
        stem = image.name.removesuffix(f"_{IMAGES}.png")
        name, city = f"{image.parent.name}/{stem}", root / TRUTHS / split / image.parent.name
        pairs.append(Pair(name, image, city / f"{stem}_{TRUTHS}_{suffix}.png"))
    return FileDataset(
        f"cityscapes-{split}",
        list(CLASSES),
        np.array([colour for _, *colour in CLASSES.values()], np.uint8),
        pairs,
        _table() if by_id else plain(len(CLASSES)),
        published=PUBLISHED.get(split),
    )


def cityscapes_splits(path: str | Path) -> list[str]:
    """The folders of images."""
    root = find_root(path, IMAGES, ("cityscapes",))
    return sorted(p.name for p in (root / IMAGES).iterdir() if p.is_dir())


def _table() -> np.ndarray:
    evaluated = {number: k for k, (number, *_) in enumerate(CLASSES.values())}
    return label_table(dict.fromkeys(range(HIGHEST + 1), IGNORE) | evaluated)
