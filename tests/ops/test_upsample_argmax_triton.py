"""The Triton `upsample_argmax`: what its exact, its pruned and its listed paths leave out or put in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from fcnkern import Resample
from fcnkern.backends import _bands
from fcnkern.backends.reference import upsample_argmax as reference
from fcnkern.resample import Pair
from tests.ops._truth import GEOMETRIES, upsampled
from tests.placement import interpreted_only, placed, refusal, upsample_argmax

pytestmark = pytest.mark.skipif(refusal("triton") is not None, reason=str(refusal("triton")))

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel does not write has a value that no test expects."""
    empty = torch.empty

    def poisoned(*args: object, **kwargs: object) -> Tensor:
        tensor = empty(*args, **kwargs)
        return tensor.fill_(NAN if tensor.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poisoned)


def run(*args: Any) -> tuple[Tensor, Tensor | None]:
    from fcnkern.backends.triton import upsample_argmax as backend

    return placed(backend.upsample_argmax, "triton")(*args)


def label(scores: Tensor, resample: Resample, size: Pair) -> tuple[Tensor, Tensor]:
    """Labels as int64, and confidences."""
    labels, confidence = run(scores, None, resample, size, torch.int64, True)
    assert confidence is not None
    return labels, confidence


def assert_right(scores: Tensor, resample: Resample, size: Pair) -> None:
    """Against fp64: other labels only where rounding decides, confidences as exact as PyTorch's in fp32."""
    labels, confidence = label(scores, resample, size)
    logits = upsampled(scores.double(), resample, size)
    chosen = logits.gather(1, labels[:, None])[:, 0]
    assert float((logits.max(1).values - chosen).max()) <= 1e-6 * float(scores.abs().max())
    probability = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    in_fp32 = upsampled(scores.float(), resample, size).softmax(1).gather(1, labels[:, None])[:, 0]
    allowed = max(5e-7, 2 * float((in_fp32 / probability - 1).abs().max()))
    assert float((confidence / probability - 1).abs().max()) <= allowed


def smooth(classes: int, height: int, width: int) -> Tensor:
    """Scores with regions, so that most cells are decided and most classes can be passed over."""
    coarse = torch.randn(2, classes, 3, 3) * 5
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")


@pytest.mark.parametrize(
    ("resample", "size", "classes"),
    [
        (Resample.deconv(8, 5), (50, 60), 19),
        (Resample.deconv((16, 4), 3), (90, 30), 21),
        (Resample.half_pixel(), (56, 64), 30),
        (Resample.half_pixel(), (23, 33), 3),
        (Resample.align_corners(), (43, 36), 19),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_regions(resample: Resample, size: Pair, classes: int, layout: torch.memory_format) -> None:
    assert_right(smooth(classes, 7, 8).contiguous(memory_format=layout), resample, size)


@pytest.mark.parametrize("resample", [Resample.half_pixel(), Resample.deconv(8, 4)])
def test_exact_ties(resample: Resample) -> None:
    scores = torch.randint(0, 3, (1, 6, 9, 20)).float()
    logits = upsampled(scores.double(), resample, (72, 160))
    assert torch.equal(label(scores, resample, (72, 160))[0], logits.argmax(1))


@pytest.mark.parametrize("name", ["deconv8-border", "half-ragged", "half-down", "corners", "identity"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_non_finite_scores(name: str, value: float) -> None:
    size_in, size_out, resample = GEOMETRIES[name]
    layout = torch.channels_last if value > 0 else torch.contiguous_format
    scores = torch.randn(2, 5, *size_in)
    scores[torch.rand(scores.shape) < 0.05] = value
    scores[0, 2] = -INF
    scores = scores.contiguous(memory_format=layout)
    labels, confidence = label(scores, resample, size_out)
    expected = reference.upsample_argmax(scores, None, resample, size_out, torch.int64, True)
    assert torch.equal(labels, expected[0])
    assert torch.allclose(confidence, expected[1], rtol=1e-5, equal_nan=True)


def test_a_class_that_is_masked_everywhere() -> None:
    scores = smooth(7, 6, 7)
    scores[:, 3] = -INF
    for resample in (Resample.deconv(8, 4), Resample.half_pixel()):
        labels, _ = label(scores, resample, (48, 56))
        expected, _ = reference.upsample_argmax(scores, None, resample, (48, 56), torch.int64, False)
        assert torch.equal(labels, expected)


@pytest.mark.parametrize("value", [3.3e38, 8e37, 1e-35])
def test_scores_near_the_ends_of_the_range(value: float) -> None:
    assert_right((torch.rand(1, 5, 3, 4) * 2 - 1) * value, Resample.half_pixel(), (24, 32))


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_common_offset_of_the_scores(offset: float) -> None:
    scores = smooth(9, 5, 6) + offset
    _, confidence = label(scores, Resample.half_pixel(), (40, 48))
    truth = upsampled(scores.double(), Resample.half_pixel(), (40, 48)).softmax(1).max(1).values
    assert float((confidence - truth).abs().max()) < 2e-3  # fp32 holds such scores to 5e-4


@pytest.mark.parametrize("classes", [24, 50])
def test_many_classes(classes: int) -> None:
    assert_right(torch.randn(1, classes, 2, 3), Resample.half_pixel(), (16, 24))


def test_the_first_class_of_a_list_of_all_survivors() -> None:
    """All scores equal in every class but the last, which never wins."""
    scores = torch.ones(1, 49, 3, 3)
    scores[:, 48] = 0
    scores[:, 0, 0, 0] = 0.5  # so that not every cell is decided
    labels, _ = label(scores, Resample.half_pixel(), (24, 24))
    assert torch.equal(labels, upsampled(scores.double(), Resample.half_pixel(), (24, 24)).argmax(1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("width", [53, 52, 56, 64])
def test_widths(dtype: torch.dtype, width: int) -> None:
    scores, resample = smooth(5, 4, 8), Resample.deconv(8, 4)
    labels = upsample_argmax(scores, Resample.deconv(8, 4, (24, width)), out_dtype=dtype, backend="triton")
    assert torch.equal(labels.long(), upsampled(scores.double(), resample, (24, width)).argmax(1))


def test_target_far_beyond_the_scale_factor() -> None:
    """Outputs past the last point repeat it."""
    scores, resample = smooth(5, 4, 4), Resample.half_pixel(scale_factor=2.0)
    labels, _ = label(scores, resample, (13, 12))
    expected, _ = reference.upsample_argmax(scores, None, resample, (13, 12), torch.int64, False)
    assert torch.equal(labels, expected)


@interpreted_only
def test_same_bits_in_any_order_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    scores, resample = smooth(19, 7, 8), Resample.deconv(8, 5)
    labels, confidence = label(scores, resample, (50, 60))
    place = interpreter.InterpreterBuilder.set_grid_idx

    def reversed_place(self: interpreter.InterpreterBuilder, x: int, y: int, z: int) -> None:
        last = self.grid_dim
        place(self, last[0] - 1 - x, last[1] - 1 - y, last[2] - 1 - z)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "set_grid_idx", reversed_place)
    again, probability = label(scores, resample, (50, 60))
    assert torch.equal(labels, again)
    assert torch.equal(confidence, probability)


@interpreted_only
def test_same_labels_in_any_order_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever cells share a warp: some have an infinity, and many have ties, which rounding breaks."""
    from fcnkern.backends.triton import _argmax_plan as plans
    from fcnkern.backends.triton import upsample_argmax as backend

    monkeypatch.setattr(plans, "LANES", plans.WARP)
    scores = torch.randint(-4, 5, (8, 4, 5, 5)).to(torch.bfloat16)
    scores[:, 0, 2, 2] = -INF
    labels = label(scores, Resample.deconv(6), (34, 34))[0]
    launch = backend._launch_cells

    def launch_shuffled(plan: plans.Plan, undecided: plans.Undecided, labels: Tensor) -> None:
        entries = undecided.entries[: int(undecided.counter)]
        entries.copy_(entries[torch.randperm(len(entries))])
        launch(plan, undecided, labels)

    monkeypatch.setattr(backend, "_launch_cells", launch_shuffled)
    assert torch.equal(label(scores, Resample.deconv(6), (34, 34))[0], labels)


def test_an_image_does_not_change_the_labels_of_others() -> None:
    """Its cells need a class that can win in no other, where rounding could let it."""
    high = 1 + torch.rand(40)
    scores = torch.zeros(41, 3, 2, 2)
    scores[:40, 0] = torch.nextafter(high, torch.zeros(()))[:, None, None]
    scores[:40, 1] = high[:, None, None]
    scores[:40, 2, 0, 0] = 1.5 * high
    scores[40, 0] = 5
    scores[40, 1, 0, 0] = 9
    labels, _ = label(scores, Resample.deconv(6), (16, 16))
    assert torch.equal(label(scores[:40], Resample.deconv(6), (16, 16))[0], labels[:40])


def test_no_images_and_too_many_classes() -> None:
    labels, confidence = label(torch.empty(0, 3, 4, 5), Resample.half_pixel(), (8, 10))
    assert labels.shape == confidence.shape == (0, 8, 10)
    with pytest.raises(ValueError, match="scores: the Triton kernels take at most 65534 classes, got 70000"):
        label(torch.zeros(1, 70000, 1, 1), Resample.identity(), (1, 1))


@pytest.mark.parametrize("depthwise", [False, True])
def test_learned_weight_in_many_bands(monkeypatch: pytest.MonkeyPatch, depthwise: bool) -> None:
    monkeypatch.setattr(_bands, "BAND_BYTES", 6000)
    scores, weight = torch.randn(2, 5, 5, 6), torch.randn(5, 1 if depthwise else 7, 8, 8)
    resample, size = Resample.deconv(4, 2), (20, 23)
    labels, confidence = run(scores, weight, resample, size, torch.uint8, True)
    logits = upsampled(scores.double(), resample, size, weight.double())
    assert torch.equal(labels.long(), logits.argmax(1))
    assert confidence is not None
    assert torch.allclose(confidence.double(), logits.softmax(1).max(1).values, rtol=1e-5)
