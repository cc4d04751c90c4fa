"""Miniature copies of published data sets: the real layouts and encodings, tiny random content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnkern.data import voc_palette

SIZE = (6, 8)
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"


def picture(seed: int) -> np.ndarray:
    """uint8 RGB."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def values(seed: int, stored: Iterable[int]) -> np.ndarray:
    """A label map in which each of the stored values occurs (at most 48 of them)."""
    wanted = np.array(list(stored))
    flat = np.random.default_rng(seed).permutation(np.resize(wanted, SIZE[0] * SIZE[1]))
    return flat.reshape(SIZE)


def save(array: np.ndarray, path: Path, palette: bool = False) -> None:
    """An image file; with `palette` in mode P with VOC's colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette(voc_palette().tobytes())
    picture.save(path)


def save_mat(path: Path, **variables: object) -> None:
    """A MATLAB 5 file; the test is skipped without scipy."""
    io = pytest.importorskip("scipy.io")
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, variables)


def write_list(path: Path, ids: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{i}\n" for i in ids))


def make_by_stem(root: Path, **lists: Iterable[str]) -> Path:
    """Images and labels of one's own, two classes."""
    for split, ids in lists.items():
        write_list(root / f"{split}.txt", ids)
        for i, name in enumerate(ids):
            save(picture(i), root / "images" / f"{name}.jpg")
            save(values(i, (0, 1)).astype(np.uint8), root / "labels" / f"{name}.png")
    write_list(root / "classes.txt", ("ground", "sky"))
    return root


def make_voc(root: Path, **lists: Iterable[str]) -> Path:
    """A year of VOC; each list has its ids, and each id its files."""
    for split, ids in lists.items():
        write_list(root / "ImageSets" / "Segmentation" / f"{split}.txt", ids)
        for i, name in enumerate(ids):
            save(picture(i), root / "JPEGImages" / f"{name}.jpg")
            label = values(i, [*range(21), 255]).astype(np.uint8)
            save(label, root / "SegmentationClass" / f"{name}.png", palette=True)
    return root


def make_sbd(root: Path, train: Iterable[str], val: Iterable[str]) -> Path:
    """benchmark_RELEASE/dataset of SBD."""
    write_list(root / "train.txt", train)
    write_list(root / "val.txt", val)
    for i, name in enumerate((*train, *val)):
        save(picture(100 + i), root / "img" / f"{name}.jpg")
        label = values(100 + i, range(21)).astype(np.uint8)
        truth = {
            "Boundaries": np.zeros((20, 1)),
            "Segmentation": label,
            "CategoriesPresent": np.array([1, 2]),
        }
        save_mat(root / "cls" / f"{name}.mat", GTcls=truth)
    return root


def make_nyud(root: Path, **lists: Iterable[str]) -> Path:
    """The authors' archive of NYUDv2."""
    for split, ids in lists.items():
        write_list(root / f"{split}.txt", ids)
        for name in ids:
            seed = int(name)
            depth = values(seed, [0, *range(700, 747)]).astype(np.uint16)
            save(picture(seed), root / "data" / "images" / f"img_{name}.png")
            save(picture(seed + 1), root / "data" / "hha" / f"img_{name}.png")
            save(depth, root / "data" / "depth" / f"img_{name}.png")
            label = values(seed, range(41)).astype(np.uint8)
            save_mat(root / "segmentation" / f"img_{name}.mat", segmentation=label)
    return root


def make_siftflow(root: Path, **lists: Iterable[str]) -> Path:
    """SiftFlowDataset with the authors' lists."""
    for split, ids in lists.items():
        write_list(root / f"{split}.txt", ids)
        for i, name in enumerate(ids):
            save(picture(i), root / "Images" / SCENES / f"{name}.jpg")
            semantic, geometric = values(i, range(34)).astype(np.uint8), values(i, [-1, 1, 2, 3])
            names = np.array(["awning", "balcony"], dtype=object)
            save_mat(root / "SemanticLabels" / SCENES / f"{name}.mat", S=semantic, names=names)
            save_mat(root / "GeoLabels" / SCENES / f"{name}.mat", S=geometric.astype(np.float64), names=names)
    return root


def make_context(root: Path, labels: np.ndarray, **lists: Iterable[str]) -> Path:
    """PASCAL-Context beside VOC2010; every label map is `labels`."""
    for split, ids in lists.items():
        write_list(root / "VOC2010" / "ImageSets" / "Main" / f"{split}.txt", ids)
        for i, name in enumerate(ids):
            save(picture(i), root / "VOC2010" / "JPEGImages" / f"{name}.jpg")
            save_mat(root / "trainval" / f"{name}.mat", LabelMap=labels)
    return root
