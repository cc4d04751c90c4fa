"""The C++ `confusion_matrix`: every label type and layout, invalid labels, any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fcnkern.backends.cpu.confusion_matrix import confusion_matrix

LABEL_TYPES = [torch.uint8, torch.int16, torch.int32, torch.int64]


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def counted(prediction: Tensor, target: Tensor, classes: int, ignore_index: int | None) -> Tensor:
    """The definition: one bincount over the pixels that are not ignored."""
    target = target.long()
    kept = slice(None) if ignore_index is None else target != ignore_index
    pairs = (target[kept] * classes + prediction[kept].long()).flatten()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def labels(classes: int, dtype: torch.dtype, shape: tuple[int, int, int] = (2, 37, 91)) -> Tensor:
    return torch.randint(0, min(classes, torch.iinfo(dtype).max + 1), shape).to(dtype)


@pytest.mark.parametrize("target_type", LABEL_TYPES)
@pytest.mark.parametrize("prediction_type", LABEL_TYPES)
@pytest.mark.parametrize("classes", [1, 2, 21, 254, 255, 256, 700])
def test_counts_every_type(prediction_type: torch.dtype, target_type: torch.dtype, classes: int) -> None:
    prediction, target = labels(classes, prediction_type), labels(classes, target_type)
    assert torch.equal(
        confusion_matrix(prediction, target, classes, None, None), counted(prediction, target, classes, None)
    )


@pytest.mark.parametrize("target_type", LABEL_TYPES)
@pytest.mark.parametrize("ignore_index", [255, 0, 3, -1, -100, 256, 2**40])
def test_ignored_pixels_take_no_part(target_type: torch.dtype, ignore_index: int) -> None:
    prediction, target = labels(21, torch.uint8), labels(21, target_type)
    if torch.iinfo(target_type).min <= ignore_index <= torch.iinfo(target_type).max:
        target[:, ::3, ::2] = ignore_index
        prediction[:, ::6, ::4] = 77  # no class, but not counted
    expected = counted(prediction, target, 21, ignore_index)
    assert torch.equal(confusion_matrix(prediction, target, 21, None, ignore_index), expected)


def test_any_strides() -> None:
    prediction = labels(5, torch.int64, (91, 3, 37)).permute(1, 2, 0)
    target = labels(5, torch.int16, (3, 74, 182))[:, ::2, ::2]
    expected = counted(prediction, target, 5, 255)
    assert torch.equal(confusion_matrix(prediction, target, 5, None, 255), expected)
    expanded = labels(5, torch.uint8, (1, 37, 91)).expand(3, 37, 91)
    assert torch.equal(confusion_matrix(expanded, target, 5, None, 255), counted(expanded, target, 5, 255))


def test_uniform_areas() -> None:
    target = labels(21, torch.int64, (1, 8, 8)).repeat_interleave(25, 1).repeat_interleave(25, 2)
    prediction = target.to(torch.uint8).roll(3, 2)
    assert torch.equal(
        confusion_matrix(prediction, target, 21, None, 255), counted(prediction, target, 21, 255)
    )


def test_empty_maps() -> None:
    nothing = torch.empty(0, 5, 5, dtype=torch.int64)
    assert torch.equal(confusion_matrix(nothing, nothing, 3, None, 255), torch.zeros(3, 3, dtype=torch.int64))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_same_counts_and_error_for_any_number_of_threads(threads: int) -> None:
    prediction, target = labels(21, torch.uint8, (1, 600, 1100)), labels(21, torch.int64, (1, 600, 1100))
    torch.set_num_threads(threads)
    assert torch.equal(
        confusion_matrix(prediction, target, 21, None, 255), counted(prediction, target, 21, 255)
    )
    target[0, 599, 1000], target[0, 250, 7], prediction[0, 250, 6] = 21, 22, 23
    with pytest.raises(ValueError, match="prediction: label 23 at image 0, row 250, column 6"):
        confusion_matrix(prediction, target, 21, None, 255)


@pytest.mark.parametrize("label", [21, 254, -1, 2**32 + 3])
@pytest.mark.parametrize("name", ["prediction", "target"])
def test_invalid_labels_are_named(name: str, label: int) -> None:
    maps = {"prediction": labels(21, torch.int64), "target": labels(21, torch.int64)}
    maps[name][1, 30, 90] = label
    maps[name][1, 36, 2] = 100
    with pytest.raises(
        ValueError, match=f"{name}: label {label} at image 1, row 30, column 90; wanted 0..20"
    ):
        confusion_matrix(maps["prediction"], maps["target"], 21, None, 255)


def test_label_that_would_match_the_ignore_index_only_after_truncation() -> None:
    prediction, target = labels(21, torch.uint8), labels(21, torch.uint8)
    target[0, 1, 2] = 255
    with pytest.raises(ValueError, match="target: label 255 at image 0, row 1, column 2"):
        confusion_matrix(prediction, target, 21, None, -1)


def test_too_many_classes() -> None:
    nothing = torch.empty(0, 5, 5, dtype=torch.int64)
    with pytest.raises(
        ValueError, match="num_classes: the CPU kernels take at most 65534 classes, got 65535"
    ):
        confusion_matrix(nothing, nothing, 65535, None, 255)
