"""SIFT Flow (Liu et al. 2009): 33 semantic and 3 geometric classes of outdoor scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnkern.data.files import FileDataset, Pair
from fcnkern.data.labels import shifted
from fcnkern.data.lists import find_root, lists_in, read_lines
from fcnkern.data.matfile import need_scipy, read_mat
from fcnkern.data.palette import voc_palette
from fcnkern.data.tasks import Tasks

SEMANTIC = [
    "awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door",
    "fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand",
    "sea", "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window",
]  # fmt: skip
GEOMETRIC = ["sky", "horizontal", "vertical"]
TASKS = {"semantic": ("SemanticLabels", SEMANTIC), "geometric": ("GeoLabels", GEOMETRIC)}
BOTH = "both"
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
PUBLISHED = {"trainval": 2486, "test": 200}


def siftflow(path: str | Path, split: str = "trainval", task: str = "semantic") -> FileDataset | Tasks:
    """SIFT Flow: Images/, SemanticLabels/ and GeoLabels/, each with the folder spatial_envelope_…, and SPLIT.txt.

    In the labels, the variable ``S``, 0 is no class of the semantic task and 1..33 are the classes; of the geometric
    task -1 is no class and 1..3 are the classes. The authors' lists are trainval.txt and test.txt: ``train`` is
    trainval where there is no train.txt. cow, desert and moon never occur in test.

    Args:
        task: ``semantic``, ``geometric`` or ``both``, for one network that learns both at once.

    Raises: ValueError for another task; FileNotFoundError, DataError naming what is missing or malformed;
    RuntimeError without scipy.
    """
    if task == BOTH:
        return Tasks(f"siftflow-{split}", {each: _one(path, split, each) for each in TASKS})
    if task not in TASKS:
        raise ValueError(f"task is {task!r}, wanted one of {', '.join(TASKS)}, {BOTH}")
    return _one(path, split, task)


def _one(path: str | Path, split: str, task: str) -> FileDataset:
    need_scipy()
    root = find_root(path, "SemanticLabels", ("SiftFlowDataset",))
    if split == "train" and not (root / "train.txt").is_file():
        split = "trainval"
    folder, classes = TASKS[task]
    pairs = [
        Pair(i, root / "Images" / SCENES / f"{i}.jpg", root / folder / SCENES / f"{i}.mat")
        for i in read_lines(root / f"{split}.txt")
    ]
    return FileDataset(
        f"siftflow-{split}-{task}",
        list(classes),
        voc_palette(len(classes)),
        pairs,
        shifted(len(classes)),
        load_label=read_surface,
        published=PUBLISHED.get(split),
    )


def siftflow_splits(path: str | Path, task: str = "semantic") -> list[str]:
    """The splits that `siftflow` finds lists of."""
    return list(lists_in(find_root(path, "SemanticLabels", ("SiftFlowDataset",))))


def read_surface(path: Path) -> np.ndarray:
    """The stored label with both values that mean no class, 0 and -1, as 0."""
    stored = read_mat(path, "S")
    return np.where(stored == -1, 0, stored)
