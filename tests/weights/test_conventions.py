"""Folding of input conventions into the first layer, and what is said where they conflict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

from fcnkern.data import Preprocess, preset, presets
from fcnkern.weights import disagreements, fold_first_layer, load

PAIRS = [
    ("torchvision", "torchvision-bgr"),
    ("torchvision-bgr", "torchvision"),
    ("caffe", "caffe-rgb"),
    ("odd", "odd-bgr"),
]
CONVENTIONS = presets | {
    "caffe-rgb": Preprocess("caffe-rgb", "rgb", 1.0, presets["caffe"].mean[::-1], (1.0, 1.0, 1.0)),
    "odd": Preprocess("odd", "rgb", 128.0, (1.0, 0.5, 0.25), (0.3, 2.0, 1.0)),
    "odd-bgr": Preprocess("odd-bgr", "bgr", 64.0, (0.5, 1.0, 2.0), (3.0, 0.1, 1.0)),
}


def prepare(preset: Preprocess, image: np.ndarray) -> Tensor:
    """What a preset does, in fp64."""
    x = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)
    x = x if preset.order == "rgb" else x.flip(0)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (preset.mean, preset.std))
    return ((x / preset.scale - mean) / std)[None]


def layer(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(6, 3, 3, 5, generator=generator, dtype=dtype)
    return weight, torch.randn(6, generator=generator, dtype=dtype)


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_first_layer_gives_the_same_padding_included(source: str, target: str, padding: int) -> None:
    old, new = CONVENTIONS[source], CONVENTIONS[target]
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    weight, bias = layer()
    want = T.conv2d(prepare(old, image), weight, bias, padding=padding)
    folded = fold_first_layer(weight, bias, old, new)
    got = T.conv2d(prepare(new, image), *folded, padding=padding)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    back = fold_first_layer(*folded, new, old)
    torch.testing.assert_close(back[0], weight, rtol=1e-14, atol=0)
    assert torch.equal(back[1], bias)


def test_different_means_fold_into_the_bias_only_without_padding() -> None:
    old, new = presets["torchvision"], presets["caffe"]
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    weight, bias = layer()
    folded = fold_first_layer(weight, bias, old, new, padded=False)
    for padding, same in ((0, True), (1, False)):
        want = T.conv2d(prepare(old, image), weight, bias, padding=padding)
        got = T.conv2d(prepare(new, image), *folded, padding=padding)
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-11) == same
    with pytest.raises(
        ValueError,
        match=r"mean mismatch: .* \(123\.675, 116\.28, 103\.53\), 'caffe' subtracts \(122\.679, 116\.669, 104\.007\)",
    ):
        fold_first_layer(weight, bias, old, new)


def test_the_fold_of_torchvision_is_the_known_one_and_rounds_once(shared) -> None:
    path = shared / "weights" / "vgg16_conv_torchvision_imagenet.npz"
    if not path.is_file():
        pytest.skip("needs shared/weights/vgg16_conv_torchvision_imagenet.npz")
    state = load(path)
    weight, bias = state["conv1_1.weight"], state["conv1_1.bias"]
    folded, same = fold_first_layer(weight, bias, presets["torchvision"], presets["torchvision-bgr"])
    assert folded.dtype == torch.float32
    assert torch.equal(same, bias)
    for channel, std in enumerate((0.225, 0.224, 0.229)):
        exact = weight[:, 2 - channel].double() / (255 * std)
        torch.testing.assert_close(folded[:, channel].double(), exact, rtol=2**-24, atol=0)


def test_what_is_folded_must_be_a_first_layer() -> None:
    with pytest.raises(ValueError, match=r"shape \(out, 3, kh, kw\), got \(4, 2, 3, 3\)"):
        fold_first_layer(torch.ones(4, 2, 3, 3), torch.ones(4), presets["caffe"], presets["caffe"])


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("caffe", "caffe", []),
        ("caffe", "bvlc", ["mean"]),
        ("torchvision", "torchvision-bgr", ["order rgb and bgr", "grey levels"]),
        (
            "torchvision",
            "caffe",
            ["order rgb and bgr", r"(58.395, 57.12, 57.375) and (1, 1, 1) grey levels", "mean"],
        ),
        ("caffe", "caffe-rgb", ["order bgr and rgb"]),
        ("nyud+nyud", "nyud+caffe", ["mean"]),
        ("caffe+nyud-hha", "nyud+nyud-hha", ["mean"]),
        ("nyud-rgbd", "caffe-rgbd", ["mean"]),
    ],
)
def test_disagreements_in_words(first: str, second: str, words: list[str]) -> None:
    found = disagreements(*(CONVENTIONS.get(name) or preset(name) for name in (first, second)))
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))
