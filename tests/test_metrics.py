"""Metrics against cases worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from fcnkern.data import camvid
from fcnkern.metrics import ConfusionMatrix, Metrics, from_confusion, trimap, upper_bound
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
    assert metrics.per_class_accuracy == pytest.approx((6 / 8, 7 / 9, 3 / 3))
    assert metrics.present_mean_iu == metrics.mean_iu
    assert metrics.mean_iu == pytest.approx(sum(iu) / 3)
    assert metrics.fw_iu == pytest.approx((8 * iu[0] + 9 * iu[1] + 3 * iu[2]) / 20)


def test_a_perfect_prediction() -> None:
    ones = (1.0, 1.0, 1.0)
    assert from_confusion(torch.diag(torch.tensor([5, 1, 9]))) == Metrics(1.0, 1.0, 1.0, 1.0, ones, ones)


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
    assert metrics.present_mean_iu == pytest.approx((3 / 4 + 1) / 2)
    assert metrics.per_class_accuracy[:2] == (3 / 4, 1)
    assert math.isnan(metrics.per_class_accuracy[2])
    assert metrics.mean_accuracy == pytest.approx((3 / 4 + 1) / 2)
    assert metrics.fw_iu == pytest.approx((4 * 3 / 4 + 4 * 1) / 8)


def test_without_valid_pixels_every_metric_is_nan() -> None:
    metrics = from_confusion(np.zeros((2, 2), dtype=np.int64))
    values = (
        metrics.pixel_accuracy,
        metrics.mean_accuracy,
        metrics.mean_iu,
        metrics.fw_iu,
        metrics.present_mean_iu,
        *metrics.per_class_accuracy,
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
    with pytest.raises(TypeError, match=r"num_classes must be a whole number, got 2\.5"):
        ConfusionMatrix(2.5)  # type: ignore[arg-type]


# -------------------------------------------------------------------- upper bounds


def blobs(*shape: int, classes: int = 4, seed: int = 0) -> torch.Tensor:
    """Label maps N,H,W of smooth regions, with a stripe that is ignored."""
    noise = torch.randn(shape[0], classes, 5, 6, generator=torch.Generator().manual_seed(seed))
    labels = torch.nn.functional.interpolate(noise, size=shape[1:], mode="bicubic").argmax(1)
    labels[:, 7:9] = 255
    return labels


@pytest.mark.parametrize("factor", [1, 2, 8, 13])
def test_upper_bound_is_that_of_pooled_labels_upsampled(factor: int) -> None:
    labels = blobs(2, 52, 65)
    margin = (0, -65 % factor, 0, -52 % factor)
    padded = torch.nn.functional.pad(labels, margin, value=255)
    one_hot = torch.nn.functional.one_hot(padded.clamp(max=4), 5).movedim(3, 1)[:, :4].float()
    shares = torch.nn.functional.avg_pool2d(one_hot, factor)
    best = torch.nn.functional.interpolate(shares, size=padded.shape[1:], mode="bilinear").argmax(1)
    expected = ConfusionMatrix(4)
    expected.update(best.to(torch.uint8), padded)
    matrix = upper_bound(labels, factor, 4)
    assert matrix.sum() == (labels != 255).sum()
    assert (matrix - expected.matrix).abs().sum() <= 4  # a tie may fall either way


def test_upper_bound_falls_with_the_factor() -> None:
    labels = blobs(3, 96, 128)
    bounds = [from_confusion(upper_bound(labels, factor, 4)).mean_iu for factor in (1, 2, 4, 8, 16, 32, 64)]
    assert bounds[0] == 1
    assert all(coarse < fine for fine, coarse in pairwise(bounds))


def test_upper_bound_of_real_camvid(shared: Path) -> None:
    dataset = camvid(shared / "data" / "camvid", "val")
    labels = torch.stack([torch.from_numpy(dataset[index].label) for index in range(0, 101, 10)])
    bounds = [100 * from_confusion(upper_bound(labels, f, 11)).mean_iu for f in (128, 64, 32, 16, 8, 4)]
    # Thinner objects than VOC's, so below the paper's 50.9, 73.3, 86.1, 92.8, 96.4, 98.5, and in the same order.
    for bound, paper in zip(bounds, (50.9, 73.3, 86.1, 92.8, 96.4, 98.5), strict=True):
        assert bound < paper
    assert all(coarse + 4 < fine for coarse, fine in pairwise(bounds))
    assert bounds[-1] > 92


def test_bad_upper_bounds() -> None:
    with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
        upper_bound(TARGET, 0, 3)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1 or 255"):
        upper_bound(TARGET, 2, 2)


# -------------------------------------------------------------------- trimaps


def by_definition(labels: np.ndarray, width: int) -> np.ndarray:
    """Every pixel looks at all others that are at most `width` rows and columns away."""
    result = labels.copy()
    for (n, y, x), label in np.ndenumerate(labels):
        near = labels[n, max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        if (near == label).all():
            result[n, y, x] = 255
    return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_trimap_is_the_band_along_boundaries(width: int, dtype: torch.dtype) -> None:
    labels = blobs(2, 24, 31, seed=3).to(dtype)
    band = trimap(labels, width)
    assert band.dtype == dtype
    assert np.array_equal(band.numpy(), by_definition(labels.numpy(), width))


def test_trimap_of_two_halves() -> None:
    labels = torch.zeros(1, 4, 12, dtype=torch.uint8)
    labels[:, :, 6:] = 1
    for width in (1, 3):
        assert (trimap(labels, width) != 255).sum() == 4 * 2 * width
    assert (trimap(torch.zeros(1, 4, 12), 2) == 255).all()
    void = torch.where(labels == 1, 255, labels)  # ignored pixels make a boundary, and are not scored
    assert (trimap(void, 2) != 255).sum() == 4 * 2
    with pytest.raises(ValueError, match="width must be at least 1 pixel, got 0"):
        trimap(labels, 0)


def test_trimap_sees_errors_at_boundaries_alone() -> None:
    labels = torch.zeros(1, 6, 20, dtype=torch.uint8)
    labels[:, :, 10:] = 1
    shifted = torch.roll(labels, 1, dims=2)
    shifted[:, :, 0] = 0
    accuracy = {}
    for width in (1, 2, 5, 10):
        matrix = ConfusionMatrix(2)
        matrix.update(shifted, trimap(labels, width))
        accuracy[width] = matrix.compute().pixel_accuracy
    assert accuracy == pytest.approx({1: 1 / 2, 2: 3 / 4, 5: 9 / 10, 10: 19 / 20})
