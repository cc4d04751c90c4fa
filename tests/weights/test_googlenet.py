"""BVLC GoogLeNet's real weights give Caffe's own activations, and name photographs rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fcnkern.data import preset
from fcnkern.weights import load
from tests.weights._googlenet import activations

EVERY_EIGHTH_CHANNEL = ("conv1/7x7_s2", "pool1/3x3_s2", "pool1/norm1", "conv2/norm2")
BLOBS = (
    *EVERY_EIGHTH_CHANNEL, "pool2/3x3_s2", "inception_3a/output", "pool3/3x3_s2", "inception_4a/output",
    "pool4/3x3_s2", "inception_5b/output", "prob",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    folder = shared / "weights"
    if not (folder / "bvlc_googlenet_imagenet.npz").is_file():
        pytest.skip("needs shared/weights/bvlc_googlenet_imagenet.npz")
    return folder


@pytest.fixture(scope="module")
def state(folder: Path) -> dict[str, Tensor]:
    return load(folder / "bvlc_googlenet_imagenet.npz")


@pytest.fixture(scope="module")
def caffe(folder: Path) -> dict[str, Tensor]:
    """Blobs that Caffe computed, by name."""
    return load(folder / "googlenet_caffe_activations.npz")


@pytest.fixture(scope="module")
def ours(state: dict[str, Tensor], caffe: dict[str, Tensor]) -> dict[str, Tensor]:
    return activations(state, caffe["data"])


def test_every_stored_blob_is_compared(caffe: dict[str, Tensor]) -> None:
    assert set(caffe) == {"data", *BLOBS}


@pytest.mark.parametrize("name", BLOBS)
def test_activations_are_caffes(ours: dict[str, Tensor], caffe: dict[str, Tensor], name: str) -> None:
    blob = ours[name][:, ::8] if name in EVERY_EIGHTH_CHANNEL else ours[name]
    want = caffe[name]
    assert blob.shape == want.shape
    assert (blob - want).abs().max() <= 2e-5 * want.abs().max()


# Photographs of things that are classes of ImageNet. (Most of the others of these packages are not.)
SCIKIT_IMAGE = {
    "chelsea": {"Egyptian cat", "tabby", "tiger cat"},
    "coffee": {"espresso"},
    "rocket": {"missile", "projectile"},
    "camera": {"tripod"},
}


@pytest.mark.parametrize("name", SCIKIT_IMAGE)
def test_names_the_photographs_of_scikit_image(folder: Path, state: dict[str, Tensor], name: str) -> None:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, an optional peer of the tests")
    photograph = getattr(data, name)()
    assert class_of(folder, state, photograph) in SCIKIT_IMAGE[name]


def test_names_the_photograph_of_scikit_learn(folder: Path, state: dict[str, Tensor]) -> None:
    datasets = pytest.importorskip(
        "sklearn.datasets", reason="needs scikit-learn, an optional peer of the tests"
    )
    photograph = datasets.load_sample_image("china.jpg")  # pavilions of the Summer Palace
    assert class_of(folder, state, photograph) in {"monastery", "palace"}


def class_of(folder: Path, state: dict[str, Tensor], photograph: np.ndarray) -> str:
    """The most probable class of ImageNet, from the middle square of a photograph."""
    image = Image.fromarray(photograph).convert("RGB")
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.resize((224, 224), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    probabilities = activations(state, preset("bvlc")(np.asarray(square))[None])["prob"][0]
    synset = (folder / "synset_words.txt").read_text().splitlines()[int(probabilities.argmax())]
    torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))
    return synset.split(" ", 1)[1].split(",")[0]
