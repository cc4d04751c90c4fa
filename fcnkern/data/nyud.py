"""NYUDv2 with 40 classes (Silberman et al. 2012, Gupta et al. 2013), as the authors of FCN packed it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fcnkern.data.files import FileDataset, Pair, read_image, read_samples
from fcnkern.data.labels import shifted
from fcnkern.data.lists import find_root, lists_in, read_lines
from fcnkern.data.matfile import need_scipy, read_mat
from fcnkern.data.palette import voc_palette
from fcnkern.data.preprocess import MEAN_LOG_DEPTH, Preprocess
from fcnkern.data.sample import DataError

CLASSES = [
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard",
    "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture",
    "otherprop",
]  # fmt: skip
"""The 40 classes in the authors' order and spelling."""

BESIDE = {"rgbd": "depth", "color-hha": "hha"}
"""Folder of the channels behind the colours, by the input that has both."""

PUBLISHED = {"train": 381, "val": 414, "trainval": 795, "test": 654}


def nyud(path: str | Path, split: str = "train", input: str = "color") -> FileDataset:
    """NYUDv2: data/{images,depth,hha}/img_ID.png, segmentation/img_ID.mat and SPLIT.txt with an ID a line.

    In the label, the variable ``segmentation``, 0 is no class and 1..40 are the classes. Where there is no
    trainval.txt it is train.txt and val.txt.

    Args:
        input: what `Sample.image` holds; the preset of the same network's input is named behind it.

            - ``color``: uint8 (H, W, 3), RGB (`nyud`);
            - ``hha``: uint8 (H, W, 3), horizontal disparity, height above ground and angle with gravity, as stored
              (`nyud-hha`);
            - ``depth``: float32 (H, W, 1), natural log of the stored depth (`nyud-depth`);
            - ``rgbd``: float32 (H, W, 4), RGB and the log of the depth, for early fusion (`nyud-rgbd`);
            - ``color-hha``: uint8 (H, W, 6), RGB and HHA, for late fusion (`nyud+nyud-hha`).

    Raises: ValueError for another input; FileNotFoundError, DataError naming what is missing or malformed;
    RuntimeError without scipy.
    """
    if input not in INPUTS:
        raise ValueError(f"input is {input!r}, wanted one of {', '.join(INPUTS)}")
    need_scipy()
    root = find_root(path, "segmentation", ("nyud",))
    folder, load_image, preset = INPUTS[input]
    pairs = [
        Pair(
            i,
            root / "data" / folder / f"img_{i}.png",
            root / "segmentation" / f"img_{i}.mat",
            root / "data" / BESIDE[input] / f"img_{i}.png" if input in BESIDE else None,
        )
        for i in _ids(root, split)
    ]
    return FileDataset(
        f"nyud-{split}-{input}",
        list(CLASSES),
        voc_palette(len(CLASSES)),
        pairs,
        shifted(len(CLASSES)),
        load_image,
        read_segmentation,
        PUBLISHED.get(split),
        preset=preset,
    )


def nyud_splits(path: str | Path, input: str = "color") -> list[str]:
    """The splits that `nyud` finds lists of."""
    lists = set(lists_in(find_root(path, "segmentation", ("nyud",))))
    return sorted(lists | ({"trainval"} if {"train", "val"} <= lists else set()))


def read_segmentation(path: Path) -> np.ndarray:
    """The stored label, 0..40."""
    return read_mat(path, "segmentation")


def read_log_depth(path: Path) -> np.ndarray:
    """Natural log of a depth image, float32 (H, W, 1).

    The authors take the log of every pixel, and so of 0, which means unmeasured; here it becomes the mean, which is 0
    after the preset.
    """
    depth = read_samples(path).astype(np.float32)
    log = np.full_like(depth, MEAN_LOG_DEPTH)
    return np.log(depth, out=log, where=depth > 0)[:, :, None]


def read_rgbd(path: Path) -> np.ndarray:
    """An image of data/images and the log depth of the same name, float32 (H, W, 4)."""
    beside = path.parent.with_name(BESIDE["rgbd"]) / path.name
    return _joined(path, read_image(path).astype(np.float32), beside, read_log_depth(beside))


def read_color_hha(path: Path) -> np.ndarray:
    """An image of data/images and the HHA of the same name, uint8 (H, W, 6)."""
    beside = path.parent.with_name(BESIDE["color-hha"]) / path.name
    return _joined(path, read_image(path), beside, read_image(beside))


def _joined(path: Path, image: np.ndarray, beside: Path, more: np.ndarray) -> np.ndarray:
    """The channels of two images of one size."""
    if image.shape[:2] != more.shape[:2]:
        raise DataError(
            f"image {beside} is {more.shape[1]}x{more.shape[0]}, {path} beside it is "
            f"{image.shape[1]}x{image.shape[0]} (width x height)"
        )
    return np.concatenate([image, more], axis=2)


INPUTS = {
    "color": ("images", read_image, None),
    "hha": ("hha", read_image, "nyud-hha"),
    "depth": ("depth", read_log_depth, "nyud-depth"),
    "rgbd": ("images", read_rgbd, "nyud-rgbd"),
    "color-hha": ("images", read_color_hha, "nyud+nyud-hha"),
}


_READERS: dict[int, Callable[[Path], np.ndarray]] = {
    1: read_log_depth,
    3: partial(read_image, upright=True),
    4: read_rgbd,
    6: read_color_hha,
}


def read_input(path: Path, preprocess: Preprocess) -> np.ndarray:
    """An image as the preset wants it: a photograph, a depth image, or a photograph beside depth/ or hha/.

    A photograph alone is turned as its EXIF orientation says; what lies beside others is taken as stored.

    Raises: FileNotFoundError, DataError naming the file.
    """
    return _READERS[len(preprocess.mean)](path)


def _ids(root: Path, split: str) -> list[str]:
    if split == "trainval" and not (root / "trainval.txt").is_file():
        return _ids(root, "train") + _ids(root, "val")
    return read_lines(root / f"{split}.txt")
