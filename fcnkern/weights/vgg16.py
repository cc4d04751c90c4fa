"""Load ImageNet's VGG16 from a local file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from fcnkern.weights.readers import read_tensors
from fcnkern.weights.transfer import LoadReport, transfer_vgg16

if TYPE_CHECKING:
    from fcnkern.models.vgg import VGG16


def load_vgg16(
    model: VGG16,
    path: str | os.PathLike[str],
    *,
    preprocess: Literal["torchvision", "caffe"] = "torchvision",
) -> LoadReport:
    """Load VGG16 weights from a file into `model` (a VGG16 or any FCN) and note how its images must be prepared.

    Layers may be called as in torchvision (`features.0.weight`, `classifier.0.weight`), or as in Caffe and
    pytorch-fcn (`conv1_1.weight`). fc6 and fc7 are taken where the file has them; otherwise they get new
    He-initialised weights and the report says so. A model with `width` < 1 gets the leading channels of each
    layer, rescaled: a warm start only (see `fcnkern.weights.transfer.transfer_vgg16`).

    Args:
        path: a .npz, .safetensors, or .pth/.pt/.tar (torch.save) file.
        preprocess: the convention the weights were trained with, stored as `model.preprocess`: "torchvision" (RGB,
            divided by 255, mean and standard deviation) or "caffe" (BGR 0..255 minus the mean; so are VGG files
            converted from Caffe, also under torchvision's layer names). A file does not say which; the wrong
            one costs accuracy without any other sign.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file or unknown format; a missing layer or one of another shape; an unknown
            `preprocess`. The message names the file and the layer, and the model is unchanged.
    """
    if preprocess not in ("torchvision", "caffe"):
        raise ValueError(f"preprocess must be 'torchvision' or 'caffe', got {preprocess!r}")
    report = transfer_vgg16(model, read_tensors(path), source=os.fspath(path))
    model.preprocess = preprocess
    return report
