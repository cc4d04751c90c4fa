"""Predictions averaged over mirrored and resized copies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as T

from fcnkern import functional as F
from fcnkern.models import FCN, create
from tests.models import _caffe


@pytest.fixture(scope="module")
def model() -> FCN:
    network = create("fcn8s_caffenet", 3, width=1 / 32).eval()
    _caffe.randomize(network)
    return network


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(1, 3, 41, 54, generator=torch.Generator().manual_seed(0))


def test_the_mean_of_all_copies_is_labelled(model: FCN, image: torch.Tensor) -> None:
    with torch.no_grad():
        total = torch.zeros(1, 3, 41, 54)
        for size in ((41, 54), (62, 81)):
            copy = T.interpolate(image, size, mode="bilinear", antialias=True)
            for mirrored in (False, True):
                out = model(copy.flip(3) if mirrored else copy).softmax(1)
                total += T.interpolate(
                    out.flip(3) if mirrored else out, (41, 54), mode="bilinear", antialias=True
                )
    top = total.topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1]) > 1e-4
    found = model.predict(image, scales=(1.0, 1.5), flip=True, out_dtype=torch.int64)
    assert found.dtype == torch.int64
    assert torch.equal(found[clear], total.argmax(1)[clear])
    assert not torch.equal(found, model.predict(image, out_dtype=torch.int64))


def test_mirrored_images_give_mirrored_labels(model: FCN, image: torch.Tensor) -> None:
    forth = model.predict(image, flip=True)
    back = model.predict(image.flip(3), flip=True).flip(2)
    assert (forth == back).float().mean() > 0.999  # sums in another order


def test_one_plain_copy_is_the_plain_prediction(model: FCN, image: torch.Tensor) -> None:
    assert torch.equal(model.predict(image, scales=[1]), model.predict(image))


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (float("inf"),), 2.0])
def test_bad_scales_are_named(model: FCN, image: torch.Tensor, scales: Any) -> None:
    with pytest.raises(ValueError, match="scales must be one or more positive finite numbers"):
        model.predict(image, scales=scales)


def test_tiny_copies_of_tiny_images(model: FCN) -> None:
    assert model.predict(torch.zeros(1, 3, 1, 2), scales=(0.1, 1.0)).shape == (1, 1, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_averages_in_float32(
    model: FCN, image: torch.Tensor, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    argmax = F.upsample_argmax

    def seen(scores: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        taken.append(scores.dtype)
        return argmax(scores, *arguments, **options)

    monkeypatch.setattr(F, "upsample_argmax", seen)
    expected = model.predict(image, scales=(0.75, 1.0), flip=True)
    with torch.autocast("cpu", dtype):
        found = model.predict(image, scales=(0.75, 1.0), flip=True)
    assert (found == expected).float().mean() > 0.9
    whole = copy.deepcopy(model).to(dtype).predict(image.to(dtype), scales=(0.75, 1.0), flip=True)
    assert (whole == expected).float().mean() > 0.9
    assert taken == [torch.float32] * 3
