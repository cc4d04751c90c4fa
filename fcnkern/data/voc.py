"""PASCAL VOC's segmentations and SBD's, and the splits that join the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnkern.data.files import FileDataset, Pair, read_label
from fcnkern.data.lists import find_root, lists_in, read_lines
from fcnkern.data.matfile import need_scipy, read_mat
from fcnkern.data.palette import VOC_CLASSES, voc_palette
from fcnkern.data.sample import DataError

LISTS = "ImageSets/Segmentation"
SBD_PLACES = ("dataset", "benchmark_RELEASE/dataset")
YEARS = ("VOC20*", "VOCdevkit/VOC20*", "TrainVal/VOCdevkit/VOC20*")
SEG11VALID = 736
WITH_SBD = ("sbdtrain", "trainaug")
PUBLISHED = {
    "VOC2011": {"train": 1112, "val": 1111, "trainval": 2223, "seg11valid": SEG11VALID},
    "VOC2012": {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582},
    "SBD": {"train": 8498, "val": 2857, "trainval": 11355},
}


def voc(path: str | Path, split: str = "train", sbd: str | Path | None = None) -> FileDataset:
    """PASCAL VOC: 20 classes and background; 255 in the palette images is no class.

    `path` is a year's folder (VOC2011, VOC2012), or one above it, VOCdevkit or that of the archive, if it holds
    only one year. Splits: the lists of ImageSets/Segmentation (train, val, trainval), and

    - ``seg11valid``: the 736 images of VOC2011's val that are not in SBD's train, on which the paper reports;
      read from seg11valid.txt where it is present, else computed, with `sbd`;
    - ``sbdtrain``: SBD's train, the paper's training set; with `sbd`;
    - ``trainaug``: VOC's train with VOC's labels and all of SBD with its own, without VOC's val; of VOC2012 the
      10,582 images that others train on. From SegmentationClassAug/ and trainaug.txt where they are present.

    Args:
        sbd: SBD's folder, see the function `sbd`; its own copies of the images are read.

    Raises: FileNotFoundError, DataError naming what is missing or malformed; RuntimeError without scipy where SBD's
    labels are read.
    """
    root = find_root(path, LISTS, YEARS)
    year = root.resolve().name
    augmented = split == "trainaug" and (root / LISTS / "trainaug.txt").is_file()
    if (root / LISTS / f"{split}.txt").is_file():
        truths = "SegmentationClassAug" if augmented else "SegmentationClass"
        pairs = _voc_pairs(root, _ids(root, split), truths)
    elif split in ("seg11valid", *WITH_SBD):
        pairs = _joined(root, year, split, sbd)
    else:
        raise FileNotFoundError(f"{root} has no split {split!r}, there is {', '.join(voc_splits(path, sbd))}")
    return _dataset(f"{year.lower()}-{split}", pairs, PUBLISHED.get(year, {}).get(split))


def voc_splits(path: str | Path, sbd: str | Path | None = None) -> list[str]:
    """The splits that `voc` can make."""
    root = find_root(path, LISTS, YEARS)
    computed = [] if sbd is None else list(WITH_SBD)
    if sbd is not None and root.resolve().name == "VOC2011":
        computed.append("seg11valid")
    return sorted({*lists_in(root / LISTS), *computed})


def sbd(path: str | Path, split: str = "train", voc: str | Path | None = None) -> FileDataset:
    """SBD (Hariharan et al. 2011) with VOC's classes; its labels have no void.

    `path` is the folder dataset/, with img/, cls/*.mat and train.txt and val.txt, or the archive's, above it. Splits:
    ``train`` (8,498), ``val`` (2,857), ``trainval``, and with `voc`, a year's folder, ``train_noval``: train
    without what is in that year's val.

    Raises: as `voc`.
    """
    need_scipy()
    root = _sbd_root(path)
    if split == "train_noval":
        if voc is None:
            raise ValueError("the split train_noval takes out VOC's val: say where it is by voc=PATH")
        held_out = set(_ids(find_root(voc, LISTS, YEARS), "val"))
        ids = [i for i in _sbd_ids(root, "train") if i not in held_out]
    else:
        ids = _sbd_ids(root, split)
    return _dataset(f"sbd-{split}", _sbd_pairs(root, ids), PUBLISHED["SBD"].get(split))


def sbd_splits(path: str | Path, voc: str | Path | None = None) -> list[str]:
    """The splits that `sbd` can make."""
    lists = set(lists_in(_sbd_root(path)))
    both = {"trainval"} if {"train", "val"} <= lists else set()
    return sorted(lists | both | ({"train_noval"} if voc is not None else set()))


def read_segmentation(path: Path) -> np.ndarray:
    """A label of VOC (palette image) or of SBD (.mat, the struct GTcls), as stored."""
    return read_mat(path, "GTcls", "Segmentation") if path.suffix == ".mat" else read_label(path)


def _dataset(name: str, pairs: list[Pair], published: int | None) -> FileDataset:
    classes = list(VOC_CLASSES)
    palette = voc_palette(len(classes))
    return FileDataset(name, classes, palette, pairs, load_label=read_segmentation, published=published)


def _joined(root: Path, year: str, split: str, sbd: str | Path | None) -> list[Pair]:
    """The splits that need both releases."""
    if sbd is None:
        raise ValueError(f"{root / LISTS} has no {split}.txt; to compute it say where SBD is by sbd=PATH")
    extra = _sbd_root(sbd)
    if split == "seg11valid":
        return _voc_pairs(root, _seg11valid(root, year, extra))
    need_scipy()
    if split == "sbdtrain":
        return _sbd_pairs(extra, _sbd_ids(extra, "train"))
    own, held_out = _ids(root, "train"), set(_ids(root, "val"))
    others = sorted(set(_sbd_ids(extra, "trainval")) - held_out - set(own))
    return _voc_pairs(root, own) + _sbd_pairs(extra, others)


def _seg11valid(root: Path, year: str, sbd: Path) -> list[str]:
    if year != "VOC2011":
        raise DataError(f"{root}: seg11valid is computed from the lists of VOC2011, these are of {year}")
    trained_on = set(_sbd_ids(sbd, "train"))
    ids = [i for i in _ids(root, "val") if i not in trained_on]
    if len(ids) != SEG11VALID:
        raise DataError(
            f"{root / LISTS}/val.txt without {sbd}/train.txt leaves {len(ids)} images, the releases leave "
            f"{SEG11VALID}: a list is incomplete"
        )
    return ids


def _voc_pairs(root: Path, ids: list[str], truths: str = "SegmentationClass") -> list[Pair]:
    return [Pair(i, root / "JPEGImages" / f"{i}.jpg", root / truths / f"{i}.png") for i in ids]


def _sbd_pairs(root: Path, ids: list[str]) -> list[Pair]:
    return [Pair(i, root / "img" / f"{i}.jpg", root / "cls" / f"{i}.mat") for i in ids]


def _ids(root: Path, split: str) -> list[str]:
    return read_lines(root / LISTS / f"{split}.txt")


def _sbd_root(path: str | Path) -> Path:
    return find_root(path, "cls", SBD_PLACES)


def _sbd_ids(root: Path, split: str) -> list[str]:
    if split == "trainval" and not (root / "trainval.txt").is_file():
        return _sbd_ids(root, "train") + _sbd_ids(root, "val")
    return read_lines(root / f"{split}.txt")
