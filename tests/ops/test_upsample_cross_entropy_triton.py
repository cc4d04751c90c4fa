"""What the Triton kernels of upsample_cross_entropy do beside what every backend does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fcnkern import Resample, Sampling
from tests.ops._truth import relative_error, upsampled
from tests.placement import interpreted_only, refusal, upsample_cross_entropy

triton = pytest.importorskip("triton")
if refusal("triton") is not None:
    pytest.skip(str(refusal("triton")), allow_module_level=True)

from fcnkern.backends.triton import _loss_cells  # noqa: E402

DECONV = Resample.deconv(8, 11)


def problem(size_in: tuple[int, int], size_out: tuple[int, int], images: int = 2) -> tuple[Tensor, Tensor]:
    scores = torch.randn(images, 4, *size_in) * 3
    target = torch.randint(0, 4, (images, *size_out), dtype=torch.uint8)
    target[torch.rand(target.shape) < 0.1] = 255
    return scores, target


def run(scores: Tensor, target: Tensor, resample: Resample = DECONV, **options: Any) -> list[Tensor]:
    leaf = scores.detach().requires_grad_()
    loss = upsample_cross_entropy(leaf, target, resample, backend="triton", **options)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaf)]


def reference(scores: Tensor, target: Tensor, resample: Resample = DECONV, **options: Any) -> list[Tensor]:
    leaf = scores.detach().double().requires_grad_()
    loss = upsample_cross_entropy(leaf, target, resample, backend="reference", **options)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaf)]


def assert_near(ours: list[Tensor], truth: list[Tensor]) -> None:
    for value, expected in zip(ours, truth, strict=True):
        assert relative_error(value, expected) <= 5e-7


@pytest.fixture
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory holds NaN."""
    for name in ("empty", "empty_like"):
        original: Callable[..., Tensor] = getattr(torch, name)

        def poisoned(*args: Any, _original: Callable[..., Tensor] = original, **options: Any) -> Tensor:
            fresh = _original(*args, **options)
            return fresh.fill_(float("nan")) if fresh.is_floating_point() else fresh

        monkeypatch.setattr(torch, name, poisoned)


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_crop_inside_leaves_nothing_unwritten(layout: torch.memory_format) -> None:
    scores, target = problem((6, 9), (9, 11))
    scores = scores.to(memory_format=layout)
    resample = Resample.deconv(8, (23, 35))
    assert_near(run(scores, target, resample), reference(scores, target, resample))


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("warps", [1, 6])
def test_borders_of_strips_and_bands(monkeypatch: pytest.MonkeyPatch, warps: int) -> None:
    """37 columns of cells, of two images, cross the border of 32 lanes; bands end between rows of cells."""
    monkeypatch.setattr(_loss_cells, "_resident_warps", lambda pixels: warps)
    scores, target = problem((4, 18), (11, 66))
    resample = Resample.deconv(4, 3)
    assert_near(run(scores, target, resample), reference(scores, target, resample))


@pytest.mark.usefixtures("_poisoned")
def test_cells_in_parts_cross_strips() -> None:
    scores, target = problem((2, 10), (18, 160), images=1)
    resample = Resample.half_pixel()
    assert_near(run(scores, target, resample), reference(scores, target, resample))


def test_offsets_of_64_bits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, target = problem((3, 4), (7, 10))
    narrow = run(scores, target, Resample.deconv(4, 5))
    monkeypatch.setattr(_loss_cells, "_extent", lambda tensor: 2**31)
    assert all(map(torch.equal, run(scores, target, Resample.deconv(4, 5)), narrow))


def test_same_bits_again() -> None:
    scores, target = problem((3, 4), (7, 10))
    first = run(scores, target, Resample.deconv(4, 5))
    assert all(map(torch.equal, run(scores, target, Resample.deconv(4, 5)), first))


@pytest.mark.parametrize("jump", [25.0, 33.0, 200.0])
def test_steep_and_flat_cells_side_by_side(jump: float) -> None:
    """On both sides of the largest jump that the geometric sequences take."""
    scores, target = problem((2, 5), (8, 36), images=1)
    scores[:, 1, :, 3:] += jump
    resample = Resample.half_pixel(size=(8, 36))
    assert_near(run(scores, target, resample), reference(scores, target, resample))


def test_all_scores_far_below_zero() -> None:
    target = torch.randint(0, 4, (1, 7, 10))
    loss, _ = run(torch.full((1, 4, 3, 4), -1000.0), target, Resample.half_pixel())
    assert float(loss) == pytest.approx(1.3862944, rel=1e-6)


def test_a_dropped_cell_with_nan_scores_does_no_harm() -> None:
    scores, target = problem((3, 4), (7, 10))
    target[0] = 255
    scores[0] = float("nan")
    loss, grad = run(scores, target, Resample.deconv(4, 5))
    assert loss.isfinite()
    assert torch.count_nonzero(grad[0]) == 0
    assert grad[1].isfinite().all()


def test_seed_is_read_from_the_device_tensor() -> None:
    scores, target = problem((3, 4), (7, 10))
    seed = torch.tensor(3)
    options = {"sampling": Sampling(0.5, cell=4, seed=seed), "reduction": "sum"}
    first, _ = run(scores, target, Resample.deconv(4, 5), **options)
    seed.fill_(4)
    second, _ = run(scores, target, Resample.deconv(4, 5), **options)
    assert first != second
    for value, expected in ((3, first), (4, second)):
        options["sampling"] = Sampling(0.5, cell=4, seed=value)
        assert torch.equal(run(scores, target, Resample.deconv(4, 5), **options)[0], expected)


def test_fp64_is_refused_with_the_reason() -> None:
    scores, target = problem((3, 4), (7, 10))
    with pytest.raises(RuntimeError, match="triton: it does not take float64"):
        run(scores.double(), target, Resample.deconv(4, 5))
    logits = upsampled(scores.double(), Resample.deconv(4, 5), (7, 10))
    automatic = upsample_cross_entropy(scores.double(), target, Resample.deconv(4, 5))
    expected = torch.nn.functional.cross_entropy(logits, target.long(), ignore_index=255)
    assert torch.allclose(automatic, expected)


@interpreted_only
def test_images_lie_along_the_axis_of_the_grid_that_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other axes of a GPU's grid hold 65535 programs."""
    from fcnkern.backends.triton import _loss_pixelwise

    grids: list[tuple[int, ...]] = []

    class Noted:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            grids.append(grid)
            return lambda *args, **constants: None

    for kernel in ("_upsample_cross_entropy_pixels_kernel", "_sum_weights_kernel"):
        monkeypatch.setattr(_loss_pixelwise, kernel, Noted())
    scores, target = torch.zeros(70000, 2, 1, 1, requires_grad=True), torch.zeros(70000, 1, 1).long()
    upsample_cross_entropy(scores, target, Resample.identity(), backend="triton")
    assert grids == [(70000,), (70000,)]
