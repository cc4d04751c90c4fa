"""The C++ `upsample_argmax`: instruction-set levels, threads, and the cases its fast path leaves out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fcnkern import Resample, confusion_matrix
from fcnkern.backends.cpu import upsample_argmax as backend
from fcnkern.backends.cpu._extension import kernels
from fcnkern.backends.reference import upsample_argmax as reference
from fcnkern.resample import Pair
from tests.ops._truth import GEOMETRIES, upsampled

LEVELS = kernels.build_info()["isas"]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _clean_state() -> Iterator[None]:
    threads, level = torch.get_num_threads(), kernels.build_info()["isa"]
    kernels.poison_scratch(True)
    yield
    kernels.poison_scratch(False)
    kernels.use_isa(level)
    torch.set_num_threads(threads)


def label(scores: Tensor, resample: Resample, size: Pair) -> tuple[Tensor, Tensor]:
    """Labels as int64, and confidences."""
    labels, confidence = backend.upsample_argmax(scores, None, resample, size, torch.int64, True)
    assert confidence is not None
    return labels, confidence


def assert_right(scores: Tensor, resample: Resample, size: Pair) -> None:
    """Against fp64: other labels only where rounding decides, confidences as exact as PyTorch's in fp32."""
    labels, confidence = label(scores, resample, size)
    logits = upsampled(scores.double(), resample, size)
    chosen = logits.gather(1, labels[:, None])[:, 0]
    rounding = 1e-6 * float(scores.abs().max())
    assert float((logits.max(1).values - chosen).max()) <= rounding
    probability = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    in_fp32 = upsampled(scores.float(), resample, size).softmax(1).gather(1, labels[:, None])[:, 0]
    allowed = max(5e-7, 2 * float((in_fp32 / probability - 1).abs().max()))
    assert float((confidence / probability - 1).abs().max()) <= allowed


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_at_every_level(level: str, name: str) -> None:
    kernels.use_isa(level)
    size_in, size_out, resample = GEOMETRIES[name]
    assert_right(torch.randn(2, 5, *size_in) * 3, resample, size_out)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("classes", [1, 254, 255, 256, 700])
@pytest.mark.parametrize("factor", [1, 2, 3, 8, 24])
def test_many_classes(level: str, classes: int, factor: int) -> None:
    kernels.use_isa(level)
    scores = torch.randn(1, classes, 2, 20)
    assert_right(scores, Resample.half_pixel(), (2 * factor, 20 * factor))


def test_random_geometries() -> None:
    generator = torch.Generator().manual_seed(5)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for _ in range(60):
        size_in, size_out = (draw(1, 30), draw(1, 70)), (draw(1, 60), draw(1, 200))
        resample = Resample.half_pixel() if draw(0, 2) else Resample.align_corners()
        assert_right(torch.randn(draw(1, 3), draw(1, 9), *size_in, generator=generator), resample, size_out)


def test_pruning_leaves_the_winner_in() -> None:
    scores = torch.nn.functional.interpolate(torch.randn(1, 40, 5, 6) * 9, size=(17, 40), mode="bicubic")
    assert_right(scores, Resample.deconv(8, 31), (100, 250))
    apart = torch.zeros(1, 40, 9, 40)
    apart[:, 11] = 1e-6
    assert int(label(apart, Resample.half_pixel(), (72, 320))[0].min()) == 11


@pytest.mark.parametrize("resample", [Resample.half_pixel(), Resample.deconv(8, 4)])
def test_exact_ties(resample: Resample) -> None:
    scores = torch.randint(0, 3, (1, 6, 9, 40)).float()
    logits = upsampled(scores.double(), resample, (72, 320))
    assert torch.equal(label(scores, resample, (72, 320))[0], logits.argmax(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("name", ["deconv8-border", "half-ragged", "half-down", "corners", "identity"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_non_finite_scores(dtype: torch.dtype, name: str, value: float) -> None:
    size_in, size_out, resample = GEOMETRIES[name]
    scores = torch.randn(2, 5, *size_in).to(dtype)
    spots = torch.rand(scores.shape) < 0.05
    scores[spots] = value
    scores[0, 2] = -INF
    labels, confidence = label(scores, resample, size_out)
    expected = reference.upsample_argmax(scores, None, resample, size_out, torch.int64, True)
    assert torch.equal(labels, expected[0])
    assert torch.allclose(confidence, expected[1], rtol=1e-5, equal_nan=True)


def test_scores_near_the_end_of_the_range() -> None:
    scores = (torch.rand(1, 5, 4, 20) * 2 - 1) * 3.3e38
    assert_right(scores, Resample.half_pixel(), (32, 160))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, NAN])
def test_same_bits_for_any_number_of_threads(dtype: torch.dtype, value: float) -> None:
    scores = torch.randn(2, 300, 9, 40).to(dtype)
    scores[1, 7, 3, 9] = value
    torch.set_num_threads(1)
    labels, confidence = label(scores, Resample.deconv(8, 4), (72, 320))
    target = torch.randint(0, 300, labels.shape)
    counts = confusion_matrix(scores, target, resample=Resample.deconv(8, 4), ignore_index=3)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        again, probability = label(scores, Resample.deconv(8, 4), (72, 320))
        assert torch.equal(labels, again)
        assert torch.equal(confidence.nan_to_num(-1), probability.nan_to_num(-1))
        assert torch.equal(
            counts, confusion_matrix(scores, target, resample=Resample.deconv(8, 4), ignore_index=3)
        )


def test_no_images() -> None:
    labels, confidence = label(torch.empty(0, 3, 4, 5), Resample.half_pixel(), (8, 10))
    assert labels.shape == confidence.shape == (0, 8, 10)


def test_learned_weight_in_several_bands() -> None:
    scores, weight = torch.randn(2, 4, 70, 75), torch.randn(4, 21, 16, 16)
    resample, size = Resample.deconv(8, 4), (560, 590)
    labels, confidence = backend.upsample_argmax(scores, weight, resample, size, torch.uint8, True)
    logits = upsampled(scores, resample, size, weight)
    assert torch.equal(labels.long(), logits.argmax(1))
    assert confidence is not None
    assert torch.allclose(confidence, logits.softmax(1).max(1).values, rtol=1e-5)


def test_too_many_classes() -> None:
    with pytest.raises(ValueError, match="scores: the CPU kernels take at most 65534 classes, got 70000"):
        label(torch.zeros(1, 70000, 1, 1), Resample.identity(), (1, 1))
