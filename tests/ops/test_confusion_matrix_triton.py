"""The Triton `confusion_matrix`: every label type and layout, labels out of range, many classes, any order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from fcnkern import Resample
from tests.placement import interpreted_only, placed, raises_label_error, refusal, upsample_argmax

pytestmark = pytest.mark.skipif(refusal("triton") is not None, reason=str(refusal("triton")))

LABEL_TYPES = [torch.uint8, torch.int16, torch.int32, torch.int64]


def confusion_matrix(
    prediction: Tensor, target: Tensor, classes: int, resample: Resample | None, ignore_index: int | None
) -> Tensor:
    from fcnkern.backends.triton import confusion_matrix as backend

    run = placed(backend.confusion_matrix, "triton")
    return run(prediction, target, classes, resample, ignore_index)


def counted(prediction: Tensor, target: Tensor, classes: int, ignore_index: int | None) -> Tensor:
    """The definition: one bincount over the pixels that are not ignored."""
    target = target.long()
    kept = slice(None) if ignore_index is None else target != ignore_index
    pairs = (target[kept] * classes + prediction[kept].long()).flatten()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def labels(classes: int, dtype: torch.dtype, shape: tuple[int, int, int] = (2, 37, 45)) -> Tensor:
    return torch.randint(0, min(classes, torch.iinfo(dtype).max + 1), shape).to(dtype)


@pytest.mark.parametrize("target_type", LABEL_TYPES)
@pytest.mark.parametrize("ignore_index", [255, 0, -1, 256, 2**40])
def test_ignored_pixels_take_no_part(target_type: torch.dtype, ignore_index: int) -> None:
    prediction, target = labels(21, torch.uint8), labels(21, target_type)
    if torch.iinfo(target_type).min <= ignore_index <= torch.iinfo(target_type).max:
        target[:, ::3, ::2] = ignore_index
        prediction[:, ::6, ::4] = 77  # no class, but not counted
    expected = counted(prediction, target, 21, ignore_index)
    assert torch.equal(confusion_matrix(prediction, target, 21, None, ignore_index), expected)


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


def test_bins_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton.language as tl

    from fcnkern.backends.triton import confusion_matrix as backend

    monkeypatch.setattr(backend, "index_type", lambda count: tl.int64)
    prediction, target = labels(21, torch.uint8), labels(21, torch.uint8)
    expected = counted(prediction, target, 21, None)
    assert torch.equal(confusion_matrix(prediction, target, 21, None, None), expected)
    scores, resample = torch.randn(2, 21, 6, 7), Resample.half_pixel()
    found = upsample_argmax(scores, Resample.half_pixel((37, 45)), backend="triton")
    expected = counted(found, target, 21, None)
    assert torch.equal(confusion_matrix(scores, target, 21, resample, None), expected)


def test_indices_hold_the_end_of_the_last_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs of three tiles for what four tiles and a pixel hold: the second one's end lies far beyond."""
    from fcnkern.backends.triton import _argmax_plan as plans
    from fcnkern.backends.triton import confusion_matrix as backend
    from fcnkern.backends.triton._confusion_matrix_kernels import RUN

    bounds, index_type = [], backend.index_type
    monkeypatch.setattr(backend, "index_type", lambda count: bounds.append(count) or index_type(count))
    monkeypatch.setattr(plans, "resident_warps", lambda device: 8)
    tile = max(128, plans.LANES) * RUN.value
    maps = labels(4, torch.uint8, (1, 1, 4 * tile + 1))
    assert torch.equal(confusion_matrix(maps, maps, 4, None, None), counted(maps, maps, 4, None))
    assert max(bounds) >= 6 * tile


def test_empty_maps() -> None:
    nothing = torch.empty(0, 5, 5, dtype=torch.int64)
    assert torch.equal(confusion_matrix(nothing, nothing, 3, None, 255), torch.zeros(3, 3, dtype=torch.int64))


def test_runs_over_cells_and_rows() -> None:
    """Regions of truth and of prediction that begin and end inside cells; a crop that leaves out whole cells."""
    coarse = torch.nn.functional.interpolate(torch.randn(2, 5, 3, 3) * 4, size=(9, 10), mode="bicubic")
    target = torch.randint(0, 5, (2, 7, 9)).repeat_interleave(7, 1).repeat_interleave(6, 2).to(torch.uint8)
    target[:, 5:11, ::13] = 255
    for resample in (Resample.deconv(8, 23), Resample.half_pixel(), Resample.deconv(32, 40)):
        sized = Resample(resample.kind, resample.factor, resample.offset, (49, 54))
        prediction = upsample_argmax(coarse, sized, backend="triton")
        found = confusion_matrix(coarse, target, 5, resample, 255)
        assert torch.equal(found, counted(prediction, target, 5, 255))


def test_reads_no_labels_below_the_map() -> None:
    """Fewer outputs than points, so that all cells are walked; the last ones have none. See tests/_addresses.py."""
    scores = torch.randn(2, 4, 10, 10)
    for resample in (Resample.half_pixel((3, 3)), Resample.deconv(2, size=(5, 5))):
        target = labels(4, torch.uint8, (2, *resample.size))
        prediction = upsample_argmax(scores, resample, backend="triton")
        found = confusion_matrix(scores, target, 4, resample, 255)
        assert torch.equal(found, counted(prediction, target, 4, 255))


@pytest.mark.parametrize("label", [21, 254, -1, 2**32 + 3])
@pytest.mark.parametrize("name", ["prediction", "target"])
def test_invalid_labels_are_named_and_left_out(name: str, label: int) -> None:
    maps = {"prediction": labels(21, torch.int64), "target": labels(21, torch.int64)}
    maps[name][1, 30, 40] = label
    message = f"{name}: label {label} at image 1, row 30, column 40; wanted 0..20"
    with raises_label_error("triton", message):
        confusion_matrix(maps["prediction"], maps["target"], 21, None, 255)


@interpreted_only
def test_the_first_program_that_claims_a_report_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from fcnkern.backends.triton import _argmax_plan as plans
    from fcnkern.backends.triton._confusion_matrix_kernels import RUN

    monkeypatch.setattr(plans, "resident_warps", lambda device: 8)  # two programs
    tile = max(128, plans.LANES) * RUN.value
    target = labels(4, torch.uint8, (1, 2, tile))
    target[0, :, 5] = torch.tensor([7, 9])
    with pytest.raises(ValueError, match="target: label 7 at image 0, row 0, column 5"):
        confusion_matrix(target, target, 4, None, 255)
    with pytest.raises(ValueError, match="prediction: label 7 at image 0, row 0, column 5"):
        confusion_matrix(target, labels(4, torch.uint8, (1, 2, tile)), 4, None, 255)


def test_invalid_label_in_scores_of_either_kind_of_cell() -> None:
    scores, target = torch.zeros(1, 4, 6, 6), labels(4, torch.int64, (1, 48, 48))
    scores[0, 1, :, 3:] = 1
    for column in (4, 24, 47):
        wrong = target.clone()
        wrong[0, 31, column] = 9
        with raises_label_error("triton", f"target: label 9 at image 0, row 31, column {column}"):
            confusion_matrix(scores, wrong, 4, Resample.half_pixel(), 255)


@pytest.mark.parametrize(("label", "first_row", "winner"), [(-1, 60, 3), (2**32, 12, 0)])
def test_invalid_labels_all_over_decided_cells_are_no_bin(label: int, first_row: int, winner: int) -> None:
    """As numbers of bins, these labels with this winner would be no bin and the bin of the rows above."""
    scores, target = torch.zeros(1, 4, 16, 16), torch.zeros(1, 128, 128, dtype=torch.int64)
    scores[:, winner] = 1
    target[:, first_row : first_row + 8] = label
    with raises_label_error("triton", f"target: label {label} at image 0, row {first_row + 7}, column 0"):
        confusion_matrix(scores, target, 4, Resample.half_pixel(), 255)


@interpreted_only
def test_same_counts_in_any_order_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    scores, target = torch.randn(2, 5, 6, 7), labels(5, torch.uint8)
    first = confusion_matrix(scores, target, 5, Resample.half_pixel(), 255)
    place = interpreter.InterpreterBuilder.set_grid_idx

    def reversed_place(self: interpreter.InterpreterBuilder, x: int, y: int, z: int) -> None:
        last = self.grid_dim
        place(self, last[0] - 1 - x, last[1] - 1 - y, last[2] - 1 - z)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "set_grid_idx", reversed_place)
    assert torch.equal(first, confusion_matrix(scores, target, 5, Resample.half_pixel(), 255))


def test_too_many_classes() -> None:
    nothing = torch.empty(0, 5, 5, dtype=torch.int64)
    with pytest.raises(
        ValueError, match="num_classes: the Triton kernels take at most 65534 classes, got 65535"
    ):
        confusion_matrix(nothing, nothing, 65535, None, 255)
