"""The authors' released models (fcn.berkeleyvision.org), whole: networks, classes, and how images are prepared."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fcnkern.data import VOC_CLASSES, channels_of, voc_palette
from fcnkern.data.context import NUMBERS
from fcnkern.data.nyud import CLASSES as NYUD_CLASSES
from fcnkern.data.siftflow import TASKS as SIFTFLOW_TASKS
from fcnkern.engine.network import Trained, new_network
from fcnkern.engine.settings import TrainSettings
from fcnkern.weights import transfer_network
from fcnkern.weights.conventions import agreed
from fcnkern.weights.files import WeightFile, read_weights
from fcnkern.weights.key_maps import AT_ONCE_SCALES, without_wrapper


@dataclass(frozen=True)
class Released:
    """A network of the authors.

    Attributes:
        arch: its name here, as ``fcnkern train --arch`` has it.
        classes: of all tasks, one task behind the other.
        preprocess: the preset that its data layer amounts to.
        tasks: numbers of classes by name, where there are several.
    """

    arch: str
    classes: tuple[str, ...]
    preprocess: str
    tasks: dict[str, int] = field(default_factory=dict)


_VOC, _NYUD, _CONTEXT = tuple(VOC_CLASSES), tuple(NYUD_CLASSES), ("background", *NUMBERS)
_SIFTFLOW = tuple(name for _, names in SIFTFLOW_TASKS.values() for name in names)
_TASKS = {task: len(names) for task, (_, names) in SIFTFLOW_TASKS.items()}
_STAGES = ("fcn32s", "fcn16s", "fcn8s")

RELEASED = {
    **{f"voc-{head}": Released(head, _VOC, "caffe") for head in (*_STAGES, "fcn8s-atonce")},
    "voc-fcn-alexnet": Released("fcn32s_caffenet", _VOC, "caffe"),
    "nyud-fcn32s-color": Released("fcn32s", _NYUD, "nyud"),
    "nyud-fcn32s-hha": Released("fcn32s", _NYUD, "nyud-hha"),
    "nyud-fcn32s-color-d": Released("fcn32s", _NYUD, "nyud-rgbd"),
    "nyud-fcn32s-color-hha": Released("fcn32s-late", _NYUD, "nyud+nyud-hha"),
    **{f"siftflow-{head}": Released(head, _SIFTFLOW, "siftflow", _TASKS) for head in _STAGES},
    **{f"pascalcontext-{head}": Released(head, _CONTEXT, "caffe") for head in _STAGES},
}
"""By the names of the authors' folders."""


def load_released(name: str, path: str | os.PathLike[str]) -> Trained:
    """A released model, ready to predict with: the network, its classes and the preset of its images.

    Args:
        name: one of ``RELEASED``, the authors' folder: "voc-fcn8s", "nyud-fcn32s-color-hha".
        path: the .caffemodel, or its weights in another format under Caffe's names, pytorch-fcn's or this package's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown name; a damaged file; weights of another network (WeightsMismatchError), or that state
            another preset. Colour and HHA alone, which are alike in all that a file holds, cannot be told apart.
    """
    if name not in RELEASED:
        raise ValueError(f"released model {name!r} is unknown, wanted one of {', '.join(RELEASED)}")
    known, source = RELEASED[name], f"{os.fspath(path)} as {name}"
    file = read_weights(path)
    agreed(source, file.preprocess, known.preprocess)
    if known.arch == "fcn8s-atonce":
        _check_scaled(file, path, source)
    settings = TrainSettings(arch=known.arch, data="", iterations=1)
    model = new_network(settings, len(known.classes), channels_of(known.preprocess))
    transfer_network(model, file.tensors, source=source)
    model.preprocess = known.preprocess
    palettes = [voc_palette(count) for count in known.tasks.values() or [len(known.classes)]]
    return Trained(
        model.eval(), list(known.classes), np.concatenate(palettes), settings, 0, dict(known.tasks)
    )


def _check_scaled(file: WeightFile, path: str | os.PathLike[str], source: str) -> None:
    """Refuses Caffe's FCN-8s, which has all layers of the at-once network but those that scale its features."""
    layers = {without_wrapper(key).rpartition(".")[0] for key in file.tensors}
    if Path(path).suffix.lower() == ".caffemodel" and not set(AT_ONCE_SCALES) <= layers:
        raise ValueError(f"{source}: without {', '.join(AT_ONCE_SCALES)} it is a plain FCN-8s, as voc-fcn8s")
