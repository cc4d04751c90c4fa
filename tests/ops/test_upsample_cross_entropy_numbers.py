"""upsample_cross_entropy on every backend: geometries, and scores that are hard on the arithmetic."""

from __future__ import annotations

import pytest
import torch

from fcnkern import Resample
from tests.ops._loss import DECONV, SMALL, check, plain, problem
from tests.ops._truth import GEOMETRIES
from tests.placement import upsample_cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry(backend: str, name: str, dtype: torch.dtype) -> None:
    size_in, size_out, resample = GEOMETRIES[name]
    check(backend, *problem(size_in, size_out), resample, dtype)


@pytest.mark.parametrize("classes", [1, 2, 21, 70])
def test_numbers_of_classes(backend: str, classes: int) -> None:
    check(backend, *problem(*SMALL, classes), DECONV)


@pytest.mark.parametrize("factor", [8.0, 20.0, 60.0])
def test_steep_scores(backend: str, factor: float) -> None:
    scores, target = problem(*SMALL)
    check(backend, scores * factor, target, DECONV)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_common_offset_of_all_scores(backend: str, offset: float) -> None:
    scores, target = problem(*SMALL)
    check(backend, (scores.float() + offset).double(), target, Resample.half_pixel())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30, -1e30])
def test_non_finite_scores_give_what_torch_gives(backend: str, value: float) -> None:
    scores, target = problem(*SMALL)
    scores = scores.float()
    scores[0, 2, 1, 2] = value
    ours, truth = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = upsample_cross_entropy(ours, target, DECONV, reduction="sum", backend=backend)
    expected = plain(truth, target, DECONV, reduction="sum")
    loss.backward()
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-5, equal_nan=True)
    assert torch.equal(ours.grad.isnan(), truth.grad.isnan())
    assert torch.allclose(ours.grad[1], truth.grad[1], rtol=1e-4, atol=5e-5)


def test_class_masked_by_minus_infinity(backend: str) -> None:
    scores, target = problem(*SMALL)
    scores = scores.float()
    scores[:, 2] = float("-inf")
    target[target == 2] = 255
    loss = upsample_cross_entropy(scores, target, DECONV, backend=backend)
    others = scores[:, [0, 1, 3, 4]]
    renamed = torch.where(target == 255, 255, target - (target > 2).long())
    assert torch.allclose(loss, plain(others, renamed, DECONV), rtol=1e-5)


def test_initial_loss_is_log_of_classes(backend: str) -> None:
    for classes, expected in ((21, 3.04452), (40, 3.68888), (33, 3.49651), (60, 4.09434)):
        target = torch.randint(0, classes, (1, 3, 5))
        loss = upsample_cross_entropy(torch.zeros(1, classes, 2, 2), target, DECONV, backend=backend)
        assert float(loss) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("factor", "spread"), [(1.125, 1.4), (1.25, 2.5), (2.0, 2.5), (3.5, 2.5)])
def test_twisted_scores_of_large_cells(backend: str, factor: float, spread: float) -> None:
    """Within a cell a class's scores turn by 24 bits and more: its gradient is right even where 2^-24 is nothing."""
    size = (10, 11)
    scores, target = problem(size, (int(size[0] * factor), int(size[1] * factor)), images=1)
    leaf = (scores.float() * spread).requires_grad_()
    truth = leaf.detach().double().requires_grad_()
    resample = Resample.half_pixel()
    upsample_cross_entropy(leaf, target, resample, reduction="sum", backend=backend).backward()
    plain(truth, target, resample, reduction="sum").backward()
    assert (leaf.grad - truth.grad).abs().max() <= 1.5e-6 * truth.grad.abs().max()


@pytest.mark.parametrize("size", [(24, 28), (6, 7), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_class_masked_by_the_lowest_number(backend: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    """A map of it, or of its left half: no other class's loss or gradient is touched."""
    scores, target = problem((6, 7), size)
    scores, target = scores.to(dtype), target % 2
    for columns in (slice(None), slice(3)):
        ours = scores.clone()
        ours[:, 2, :, columns] = torch.finfo(dtype).min
        truth = ours.double().clamp(min=-1e30).requires_grad_()
        ours.requires_grad_()
        loss = upsample_cross_entropy(ours, target, Resample.half_pixel(), backend=backend)
        expected = plain(truth, target, Resample.half_pixel())
        loss.backward()
        expected.backward()
        assert torch.allclose(loss.double(), expected, rtol=1e-5)
        assert torch.allclose(ours.grad.double(), truth.grad, rtol=1e-2, atol=1e-6)
