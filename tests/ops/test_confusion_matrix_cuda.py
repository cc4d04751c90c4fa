"""The CUDA C++ `confusion_matrix`: pieces and single pixels, bins in shared and global memory, tiles of scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcnkern import Resample, upsample_argmax
from fcnkern.backends.select import BACKENDS

REFUSAL = next(each for each in BACKENDS if each.name == "cuda").refusal("cpu", torch.float32)
pytestmark = pytest.mark.skipif(REFUSAL is not None, reason=str(REFUSAL))

LABEL_TYPES = [torch.uint8, torch.int16, torch.int32, torch.int64]


def confusion_matrix(
    prediction: Tensor, target: Tensor, classes: int, resample: Resample | None, ignore_index: int | None
) -> Tensor:
    from fcnkern.backends.cuda import confusion_matrix as backend

    return backend.confusion_matrix(prediction, target, classes, resample, ignore_index)


def counted(prediction: Tensor, target: Tensor, classes: int, ignore_index: int | None) -> Tensor:
    """The definition: one bincount over the pixels that are not ignored."""
    target = target.long()
    kept = slice(None) if ignore_index is None else target != ignore_index
    pairs = (target[kept] * classes + prediction[kept].long()).flatten()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def labels(classes: int, dtype: torch.dtype, shape: tuple[int, int, int] = (2, 37, 45)) -> Tensor:
    return torch.randint(0, min(classes, torch.iinfo(dtype).max + 1), shape).to(dtype)


def regions(classes: int, dtype: torch.dtype, shape: tuple[int, int, int], side: int) -> Tensor:
    """Labels in squares, as segmentations have runs."""
    n, height, width = shape
    coarse = torch.randint(0, classes, (n, height // side + 1, width // side + 1))
    wide = coarse.repeat_interleave(side, 1).repeat_interleave(side, 2)
    return wide[:, :height, :width].contiguous().to(dtype)


@pytest.mark.parametrize("classes", [1, 19, 64, 65])
@pytest.mark.parametrize("types", [(torch.uint8, torch.uint8), (torch.int64, torch.uint8)])
def test_many_steps_of_several_blocks(classes: int, types: tuple[torch.dtype, torch.dtype]) -> None:
    shape = (3, 64, 200)
    prediction, target = regions(classes, types[0], shape, 13), regions(classes, types[1], shape, 11)
    target[:, 5:11, ::13] = 255
    expected = counted(prediction, target, classes, 255)
    assert torch.equal(confusion_matrix(prediction, target, classes, None, 255), expected)


@pytest.mark.parametrize("target_type", LABEL_TYPES)
@pytest.mark.parametrize("ignore_index", [255, 0, 3, -1, 256, 2**40, None])
def test_ignored_pixels_take_no_part(target_type: torch.dtype, ignore_index: int | None) -> None:
    prediction, target = labels(21, torch.uint8), labels(21, target_type)
    limits = torch.iinfo(target_type)
    if ignore_index is not None and limits.min <= ignore_index <= limits.max:
        target[:, ::3, ::2] = ignore_index
        prediction[:, ::6, ::4] = 77  # no class, but not counted
    expected = counted(prediction, target, 21, ignore_index)
    assert torch.equal(confusion_matrix(prediction, target, 21, None, ignore_index), expected)


@pytest.mark.parametrize("dtype", LABEL_TYPES)
def test_maps_that_begin_anywhere(dtype: torch.dtype) -> None:
    """Of three images of an odd size the last two; pieces are not aligned."""
    prediction, target = labels(5, dtype, (3, 37, 45))[1:], labels(5, torch.uint8, (2, 37, 45))
    expected = counted(prediction, target, 5, None)
    assert torch.equal(confusion_matrix(prediction, target, 5, None, None), expected)
    assert torch.equal(confusion_matrix(target, prediction, 5, None, None), expected.T)


def test_any_strides() -> None:
    prediction = labels(5, torch.int64, (45, 3, 37)).permute(1, 2, 0)
    target = labels(5, torch.int16, (3, 74, 90))[:, ::2, ::2]
    expected = counted(prediction, target, 5, None)
    assert torch.equal(confusion_matrix(prediction, target, 5, None, None), expected)
    expanded = labels(5, torch.uint8, (1, 37, 45)).expand(3, 37, 45)
    assert torch.equal(confusion_matrix(expanded, target, 5, None, 255), counted(expanded, target, 5, 255))


@pytest.mark.parametrize("classes", [700, 1500])
def test_more_classes_than_copies_of_the_matrix_allow(classes: int) -> None:
    prediction, target = labels(classes, torch.int16), labels(classes, torch.int32)
    expected = counted(prediction, target, classes, None)
    assert torch.equal(confusion_matrix(prediction, target, classes, None, None), expected)


def test_empty_maps() -> None:
    nothing = torch.empty(0, 5, 5, dtype=torch.int64)
    assert torch.equal(confusion_matrix(nothing, nothing, 3, None, 255), torch.zeros(3, 3, dtype=torch.int64))


@pytest.mark.parametrize("target_type", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("classes", [5, 70])
def test_scores_and_targets_with_runs_over_tiles(target_type: torch.dtype, classes: int) -> None:
    """Regions that begin and end inside cells; several strips and bands of tiles; a crop of whole cells."""
    coarse = torch.randn(2, classes, 3, 8) * 4
    scores = torch.nn.functional.interpolate(coarse, size=(9, 36), mode="bicubic")
    target = regions(classes, target_type, (2, 49, 263), 7)
    target[:, 5:11, ::13] = ignored = min(255, torch.iinfo(target_type).max)
    for resample in (Resample.deconv(8, 20), Resample.half_pixel(), Resample.deconv(32, 40)):
        sized = Resample(resample.kind, resample.factor, resample.offset, (49, 263))
        prediction = upsample_argmax(scores, sized, backend="cuda")
        found = confusion_matrix(scores, target, classes, resample, ignored)
        assert torch.equal(found, counted(prediction, target, classes, ignored))


def test_scores_and_strided_targets() -> None:
    scores = torch.randn(2, 5, 6, 40)
    prediction = upsample_argmax(scores, Resample.half_pixel((37, 270)), backend="cuda")
    columns = labels(5, torch.uint8, (2, 37, 540))[:, :, ::2]
    rows = labels(5, torch.uint8, (2, 37, 275))[:, :, 3:273]
    turned = labels(5, torch.int64, (2, 270, 37)).transpose(1, 2)
    for target in (columns, rows, turned):
        found = confusion_matrix(scores, target, 5, Resample.half_pixel(), None)
        assert torch.equal(found, counted(prediction, target, 5, None))


@pytest.mark.parametrize(("dtype", "label"), [(torch.uint8, 21), (torch.uint8, 254), (torch.int16, -5)])
@pytest.mark.parametrize("column", [0, 40])
def test_invalid_narrow_labels(dtype: torch.dtype, label: int, column: int) -> None:
    for name in ("prediction", "target"):
        maps = {"prediction": labels(21, dtype), "target": labels(21, dtype)}
        maps[name][1, 30, column] = label
        with pytest.raises(
            ValueError, match=f"{name}: label {label} at image 1, row 30, column {column}; wanted 0..20"
        ):
            confusion_matrix(maps["prediction"], maps["target"], 21, None, 255)


@pytest.mark.parametrize("label", [21, -1, 2**32 + 3, 2**16 + 3])
@pytest.mark.parametrize("name", ["prediction", "target"])
def test_invalid_wide_labels_are_named_and_left_out(name: str, label: int) -> None:
    maps = {"prediction": labels(21, torch.int64), "target": labels(21, torch.int64)}
    maps[name][1, 30, 40] = label
    with pytest.raises(
        ValueError, match=f"{name}: label {label} at image 1, row 30, column 40; wanted 0..20"
    ):
        confusion_matrix(maps["prediction"], maps["target"], 21, None, 255)


def test_every_label_invalid() -> None:
    """Of many reports one is whole."""
    target = torch.full((1, 64, 200), 9, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"target: label 9 at image 0, row \d+, column \d+; wanted 0..3"):
        confusion_matrix(torch.zeros_like(target), target, 4, None, 255)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_invalid_label_in_scores_of_either_kind_of_cell(dtype: torch.dtype) -> None:
    scores, target = torch.zeros(1, 4, 6, 34), labels(4, dtype, (1, 48, 272))
    scores[0, 1, :, 3:] = 1
    for column in (4, 24, 47, 271):
        wrong = target.clone()
        wrong[0, 31, column] = 9
        with pytest.raises(ValueError, match=f"target: label 9 at image 0, row 31, column {column}"):
            confusion_matrix(scores, wrong, 4, Resample.half_pixel(), 255)


def test_shared_memory_that_only_static_variables_take_past_48_kib() -> None:
    """A tile of these scores takes 49052 bytes, and the kernel declares some more."""
    scores, target = torch.randn(1, 64, 40, 200), labels(64, torch.int64, (1, 42, 210))
    counts = confusion_matrix(scores, target, 64, Resample.half_pixel(), 255)
    assert int(counts.sum()) == target.numel()


def test_too_many_classes() -> None:
    nothing = torch.empty(0, 5, 5, dtype=torch.int64)
    with pytest.raises(
        ValueError, match="num_classes: the CUDA kernels take at most 65534 classes, got 65535"
    ):
        confusion_matrix(nothing, nothing, 65535, None, 255)
