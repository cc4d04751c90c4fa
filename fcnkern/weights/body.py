"""Load a trained body from a local file into a network."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, cast

from torch import nn

from fcnkern.data.preprocess import channels_of, preset, with_depth
from fcnkern.weights.conventions import agreed
from fcnkern.weights.files import WeightFile, read_weights
from fcnkern.weights.transfer import LoadReport, image_channels, transfer_body


def load_body(model: nn.Module, path: str | os.PathLike[str], *, preprocess: str | None = None) -> LoadReport:
    """Load a classifier's weights from a file into a body or any FCN, and note how its images must be prepared.

    Layers may be called as in Caffe (`conv1_1.weight`, `inception_3a/1x1.weight`), torchvision
    (`features.0.weight`), pytorch-fcn or this package. fc6 and fc7 are taken where the file has them; otherwise they
    get new He-initialised weights and the report says so. A model with `width` < 1 gets the leading channels of each
    layer, rescaled: a warm start only (see `fcnkern.weights.transfer.transfer_body`).

    Args:
        path: a .caffemodel, .npz, .safetensors, or .pth/.pt/.tar (torch.save) file.
        preprocess: the convention the weights were trained with, a name of `fcnkern.data.presets`; stored as
            `model.preprocess`. None takes what the file states; of a file that does not, "caffe" for a .caffemodel
            and otherwise what `model.preprocess` is. Most files do not say (VGG files converted from Caffe need
            "caffe", also under torchvision's names), and the wrong one costs accuracy without any other sign.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file or unknown format; weights of another network (WeightsMismatchError); an unknown
            `preprocess`, one that contradicts the file, or one for another number of channels. The message names
            the file, and the model is unchanged.
    """
    if preprocess is not None:
        preset(preprocess)
    return fill_body(model, read_weights(path), path, preprocess=preprocess)


def fill_body(
    model: nn.Module, weights: WeightFile, path: str | os.PathLike[str], *, preprocess: str | None = None
) -> LoadReport:
    """As `load_body`, with the content of the file `path`.

    Raises: as `load_body`.
    """
    convention = agreed(os.fspath(path), weights.preprocess, preprocess)
    chosen = convention or _usual(str(getattr(model, "preprocess", "torchvision")), path)
    taken, prepared = image_channels(model, dict(model.named_parameters())), channels_of(convention)
    if convention is not None and taken not in (None, prepared):
        raise ValueError(
            f"{os.fspath(path)}: preprocess {convention!r} gives {prepared} channels, the model takes {taken}"
        )
    report = transfer_body(model, weights.tensors, source=os.fspath(path))
    cast(Any, model).preprocess = chosen
    return dataclasses.replace(report, preprocess=chosen, assumed=convention is None)


def _usual(of_model: str, path: str | os.PathLike[str]) -> str:
    """The convention of weights whose file does not state it."""
    from_caffe = Path(path).suffix.lower() == ".caffemodel" and preset(of_model).order == "rgb"
    of_caffe = {3: "caffe", 4: with_depth("caffe")}
    return of_caffe.get(channels_of(of_model), of_model) if from_caffe else of_model
