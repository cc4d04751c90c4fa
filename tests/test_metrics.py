"""Metrics against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fcnkern.metrics import ConfusionMatrix, Metrics, from_confusion
from fcnkern.resample import Resample

# Three classes, 20 pixels. Rows are the truth.
HAND = [[6, 2, 0], [1, 7, 1], [0, 0, 3]]


@pytest.mark.parametrize(
    "make", [torch.tensor, np.array, lambda rows: rows, lambda rows: torch.tensor(rows).float()]
)
def test_hand_computed(make: object) -> None:
    metrics = from_confusion(make(HAND))
    assert metrics.pixel_accuracy == pytest.approx(16 / 20)
    assert metrics.mean_accuracy == pytest.approx((6 / 8 + 7 / 9 + 3 / 3) / 3)
    iu = (6 / 9, 7 / 11, 3 / 4)
    assert metrics.per_class_iu == pytest.approx(iu)
    assert metrics.mean_iu == pytest.approx(sum(iu) / 3)
    assert metrics.fw_iu == pytest.approx((8 * iu[0] + 9 * iu[1] + 3 * iu[2]) / 20)


def test_a_perfect_prediction() -> None:
    assert from_confusion(torch.diag(torch.tensor([5, 1, 9]))) == Metrics(1.0, 1.0, 1.0, 1.0, (1.0, 1.0, 1.0))


def test_a_class_absent_from_truth_and_prediction_is_left_out() -> None:
    metrics = from_confusion([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert math.isnan(metrics.per_class_iu[2])
    assert metrics.mean_accuracy == pytest.approx((3 / 4 + 1) / 2)
    assert metrics.mean_iu == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert metrics.fw_iu == pytest.approx((4 * 3 / 4 + 4 * 4 / 5) / 8)


def test_a_class_predicted_but_never_true_counts_as_zero_iu_but_not_in_accuracy() -> None:
    metrics = from_confusion([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert metrics.per_class_iu == pytest.approx((3 / 4, 1.0, 0.0))
    assert metrics.mean_iu == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert metrics.mean_accuracy == pytest.approx((3 / 4 + 1) / 2)
    assert metrics.fw_iu == pytest.approx((4 * 3 / 4 + 4 * 1) / 8)


def test_without_valid_pixels_every_metric_is_nan() -> None:
    metrics = from_confusion(np.zeros((2, 2), dtype=np.int64))
    values = (
        metrics.pixel_accuracy,
        metrics.mean_accuracy,
        metrics.mean_iu,
        metrics.fw_iu,
        *metrics.per_class_iu,
    )
    assert all(math.isnan(value) for value in values)


def test_counts_beyond_fp32_keep_their_precision() -> None:
    big = 2**40
    assert from_confusion([[big, 1], [0, big]]).pixel_accuracy == 2 * big / (2 * big + 1) < 1


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (np.zeros((2, 3)), r"square C x C array with C >= 1, got shape \(2, 3\)"),
        (np.zeros(4), "square"),
        (np.zeros((0, 0)), "C >= 1"),
        (np.array([[1, -1], [0, 2]]), "counts >= 0"),
        (np.array([[1.0, np.nan], [0, 2]]), "finite"),
        (np.array([[True, False], [False, True]]), "real counts, got dtype bool"),
        (np.array([["a", "b"], ["c", "d"]]), "real counts"),
    ],
)
def test_bad_matrices(matrix: np.ndarray, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        from_confusion(matrix)


TARGET = torch.tensor([[[0, 0, 1], [2, 255, 1]]])
PREDICTION = torch.tensor([[[0, 1, 1], [2, 2, 0]]], dtype=torch.uint8)
COUNTS = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_accumulates_label_maps_and_leaves_out_ignored_pixels() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(PREDICTION, TARGET)
    assert matrix.matrix.tolist() == COUNTS
    matrix.update(PREDICTION, TARGET)
    assert matrix.matrix.tolist() == (2 * torch.tensor(COUNTS)).tolist()
    assert matrix.matrix.dtype == torch.int64
    assert matrix.compute() == from_confusion(COUNTS)
    matrix.reset()
    assert matrix.matrix.sum() == 0


def test_another_ignore_label() -> None:
    matrix = ConfusionMatrix(3, ignore_index=2)
    matrix.update(PREDICTION.clamp(max=1), TARGET.clamp(max=2))
    assert matrix.matrix.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_accumulates_low_resolution_scores() -> None:
    scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 3, (2, 16, 20), generator=torch.Generator().manual_seed(1))
    fused, stored = ConfusionMatrix(3), ConfusionMatrix(3)
    fused.update(scores, target, Resample.half_pixel())
    full = torch.nn.functional.interpolate(scores, size=(16, 20), mode="bilinear")
    stored.update(full.argmax(1), target)
    assert fused.matrix.sum() == target.numel()
    assert (fused.matrix - stored.matrix).abs().sum() <= 2  # a tie may fall either way


def test_matrices_of_several_processes_merge() -> None:
    first, second = ConfusionMatrix(3), ConfusionMatrix(3)
    first.update(PREDICTION, TARGET)
    second.update(PREDICTION, TARGET)
    first += second
    assert first.matrix.tolist() == (2 * torch.tensor(COUNTS)).tolist()
    assert second.matrix.tolist() == COUNTS
    with pytest.raises(ValueError, match=r"\(3, 255\) and \(4, 255\)"):
        first += ConfusionMatrix(4)
    with pytest.raises(TypeError):
        first += 3


def test_bad_updates_count_nothing() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"\b(shape|size)"):
        matrix.update(PREDICTION[:, :1], TARGET)
    with pytest.raises(ValueError, match="254"):
        matrix.update(PREDICTION, torch.where(TARGET == 255, 254, TARGET))
    assert matrix.matrix.sum() == 0
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        ConfusionMatrix(0)
