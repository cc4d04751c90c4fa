"""confusion_matrix on every backend, against a masked bincount."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fcnkern import Resample
from tests.ops._truth import GEOMETRIES
from tests.placement import confusion_matrix, device_of, raises_label_error, upsample_argmax

TYPES = [torch.uint8, torch.int16, torch.int32, torch.int64]


def counted(prediction: Tensor, target: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """The same by bincount."""
    keep = target != ignore_index
    pairs = target[keep].long() * classes + prediction[keep].long()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def labels(classes: int, shape: tuple[int, int, int] = (2, 35, 41), ignored: int = 255) -> Tensor:
    """Random labels of which some are ignored."""
    drawn = torch.randint(0, classes, shape)
    drawn[torch.rand(shape) < 0.1] = ignored
    return drawn


@pytest.mark.parametrize("classes", [1, 2, 21, 150, 254, 300])
def test_label_maps(backend: str, classes: int) -> None:
    ignored = 255 if classes < 255 else -1
    prediction, target = torch.randint(0, classes, (2, 35, 41)), labels(classes, ignored=ignored)
    found = confusion_matrix(prediction, target, classes, ignore_index=ignored, backend=backend)
    assert found.dtype == torch.int64
    assert torch.equal(found, counted(prediction, target, classes, ignored))


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("target_type", TYPES)
def test_label_types(backend: str, prediction_type: torch.dtype, target_type: torch.dtype) -> None:
    prediction, target = torch.randint(0, 21, (2, 35, 41)), labels(21)
    found = confusion_matrix(prediction.to(prediction_type), target.to(target_type), 21, backend=backend)
    assert torch.equal(found, counted(prediction, target, 21))


def test_strided_label_maps_and_uniform_regions(backend: str) -> None:
    prediction = torch.randint(0, 5, (2, 7, 5)).repeat_interleave(9, 1).repeat_interleave(11, 2)
    target = torch.randint(0, 5, (2, 9, 5)).repeat_interleave(7, 1).repeat_interleave(11, 2)
    target[:, ::13] = 255
    truth = counted(prediction, target, 5)
    assert torch.equal(confusion_matrix(prediction, target, 5, backend=backend), truth)
    strided = (each.transpose(1, 2).contiguous().transpose(1, 2) for each in (prediction, target))
    assert torch.equal(confusion_matrix(*strided, 5, backend=backend), truth)


@pytest.mark.parametrize("ignore_index", [255, 3, 0, -1, 1000])
def test_ignored_labels(backend: str, ignore_index: int) -> None:
    prediction, target = torch.randint(0, 21, (2, 35, 41)), labels(21, ignored=ignore_index)
    found = confusion_matrix(prediction, target, 21, ignore_index=ignore_index, backend=backend)
    assert torch.equal(found, counted(prediction, target, 21, ignore_index))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_straight_from_scores(backend: str, name: str) -> None:
    size_in, size_out, resample = GEOMETRIES[name]
    scores, target = torch.randn(2, 7, *size_in), labels(7, (2, *size_out))
    sized = replace(resample, size=size_out)
    prediction = upsample_argmax(scores, sized, backend=backend)
    found = confusion_matrix(scores, target, resample=resample, backend=backend)
    assert torch.equal(found, counted(prediction, target, 7))


def test_all_ignored_is_all_zero(backend: str) -> None:
    target = torch.full((1, 9, 9), 255)
    assert torch.count_nonzero(confusion_matrix(torch.zeros_like(target), target, 4, backend=backend)) == 0


def test_label_out_of_range_names_value_and_place(backend: str) -> None:
    prediction, target = torch.zeros(2, 35, 41, dtype=torch.int64), labels(21)
    for value in (254, 21, -1):
        wrong = target.clone()
        wrong[1, 30, 7] = value
        message = rf"target: label {value} at image 1, row 30, column 7; wanted 0\.\.20"
        with raises_label_error(backend, message):
            confusion_matrix(prediction, wrong, 21, backend=backend)
        with raises_label_error(backend, message):
            confusion_matrix(torch.randn(2, 21, 5, 6), wrong, resample=Resample.half_pixel(), backend=backend)
    target[0, 4, 5] = 2
    prediction[0, 4, 5] = 77
    with raises_label_error(backend, r"prediction: label 77 at image 0, row 4, column 5; wanted 0\.\.20"):
        confusion_matrix(prediction, target, 21, backend=backend)
    target[0, 4, 5] = 255
    assert int(confusion_matrix(prediction, target, 21, backend=backend).sum()) == int((target != 255).sum())


def test_bad_arguments_are_named() -> None:
    prediction, target = torch.zeros(2, 5, 6, dtype=torch.uint8), labels(3, (2, 5, 6))
    with pytest.raises(ValueError, match="num_classes is needed"):
        confusion_matrix(prediction, target)
    with pytest.raises(TypeError, match="prediction must be a tensor, got ndarray"):
        confusion_matrix(prediction.numpy(), target, 3)
    with pytest.raises(TypeError, match="prediction must be a tensor, got NoneType"):
        confusion_matrix(None, target, resample=Resample.identity())
    with pytest.raises(ValueError, match="prediction must be 2×5×6"):
        confusion_matrix(prediction[:, :4], target, 3)
    with pytest.raises(TypeError, match=r"num_classes must be a whole number, got 5\.0"):
        confusion_matrix(prediction, target, 5.0)
    with pytest.raises(TypeError, match="ignore_index must be a whole number, got None"):
        confusion_matrix(prediction, target, 5, ignore_index=None)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        confusion_matrix(prediction, target, 0)
    with pytest.raises(TypeError, match="target must be of type uint8"):
        confusion_matrix(prediction, target.float(), 3)
    with pytest.raises(ValueError, match="num_classes must be 7"):
        confusion_matrix(torch.randn(2, 7, 5, 6), target, 3, resample=Resample.identity())


def test_opcheck(backend: str) -> None:
    operator = torch.ops.fcnkern.confusion_matrix.default
    target = labels(7, (2, 9, 13)).to(device_of(backend))
    prediction, scores = torch.randint_like(target, 0, 7), torch.randn(2, 7, 2, 3).to(target.device)
    torch.library.opcheck(operator, (prediction, target, 7, None, 255, backend))
    torch.library.opcheck(operator, (scores, target, 7, "half_pixel", 255, backend))
