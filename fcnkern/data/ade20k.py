"""ADE20K as SceneParse150 (Zhou et al. 2017): 150 classes."""

from __future__ import annotations

from pathlib import Path

from fcnkern.data.files import FileDataset, Pair
from fcnkern.data.labels import shifted
from fcnkern.data.lists import contents, find_root
from fcnkern.data.palette import voc_palette
from fcnkern.data.sample import DataError

NAMES = "objectInfo150.txt"
FOLDERS = {"train": "training", "val": "validation"}
PLACES = ("ADEChallengeData2016",)
PUBLISHED = {"train": 20210, "val": 2000}


def ade20k(path: str | Path, split: str = "train") -> FileDataset:
    """images/{training,validation}/STEM.jpg, annotations/ the same with STEM.png, and objectInfo150.txt.

    In the labels 0 is no class and 1..150 are the classes. Splits are ``train``, ``val`` and the names of other
    folders. The names of the classes are the first of those that objectInfo150.txt gives, the colours VOC's.

    Raises: FileNotFoundError, DataError naming what is missing or malformed.
    """
    root = find_root(path, NAMES, PLACES)
    folder = root / "images" / FOLDERS.get(split, split)
    images = sorted(folder.glob("*.jpg"))
    if not images:
        nearest = next(p for p in (folder, *folder.parents) if p.is_dir())
        raise FileNotFoundError(f"{folder} has no *.jpg; {nearest} holds {contents(nearest)}")
    truths = root / "annotations" / folder.name
    classes = _class_names(root / NAMES)
    return FileDataset(
        f"ade20k-{split}",
        classes,
        voc_palette(len(classes)),
        [Pair(image.stem, image, truths / f"{image.stem}.png") for image in images],
        shifted(len(classes)),
        published=PUBLISHED.get(split),
    )


def ade20k_splits(path: str | Path) -> list[str]:
    """The folders of images, by the names of the splits."""
    names = {folder: split for split, folder in FOLDERS.items()}
    images = find_root(path, NAMES, PLACES) / "images"
    return sorted(names.get(p.name, p.name) for p in images.glob("*") if p.is_dir())


def _class_names(path: Path) -> list[str]:
    """The last column of the table of the classes, without synonyms; its first line is the heading."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    if not rows or any(len(row) != 5 or row[0].strip() != str(k) for k, row in enumerate(rows, 1)):
        raise DataError(f"{path} is not a table of Idx, Ratio, Train, Val, Name with a line a class, from 1")
    return [row[4].split(",")[0].strip() for row in rows]
