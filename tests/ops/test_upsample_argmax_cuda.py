"""The CUDA C++ `upsample_argmax`: tiles and their edges, decided and undecided cells, stores of every alignment."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcnkern import Resample
from fcnkern.backends.reference import upsample_argmax as reference
from fcnkern.backends.select import BACKENDS
from fcnkern.resample import Pair
from tests.ops._truth import GEOMETRIES, upsampled

REFUSAL = next(each for each in BACKENDS if each.name == "cuda").refusal("cpu", torch.float32)
pytestmark = pytest.mark.skipif(REFUSAL is not None, reason=str(REFUSAL))

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel does not write has a value that no test expects."""
    empty = torch.empty

    def poisoned(*args: object, **kwargs: object) -> Tensor:
        tensor = empty(*args, **kwargs)
        return tensor.fill_(NAN if tensor.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poisoned)


def label(
    scores: Tensor, resample: Resample, size: Pair, dtype: torch.dtype = torch.int64
) -> tuple[Tensor, Tensor]:
    """Labels, and confidences."""
    from fcnkern.backends.cuda import upsample_argmax as backend

    labels, confidence = backend.upsample_argmax(scores, None, resample, size, dtype, True)
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


def regions(classes: int, height: int, width: int) -> Tensor:
    """Scores of which most cells are decided, and others have few classes that can win."""
    coarse = torch.randn(2, classes, 3, 4) * 5
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")


@pytest.mark.parametrize(
    ("resample", "size_in", "size", "classes"),
    [
        (Resample.deconv(8, 5), (7, 70), (50, 555), 19),
        (Resample.deconv(8), (2, 40), (24, 328), 40),
        (Resample.deconv((16, 4), 3), (7, 8), (90, 30), 21),
        (Resample.deconv(2, 1), (19, 150), (36, 300), 3),
        (Resample.deconv(32, 7), (3, 5), (99, 150), 7),
        (Resample.half_pixel(), (5, 131), (43, 520), 70),
        (Resample.half_pixel(), (9, 250), (11, 290), 5),
        (Resample.half_pixel(), (3, 60), (80, 25), 5),
        (Resample.half_pixel(), (40, 3), (9, 300), 4),
        (Resample.align_corners(), (7, 8), (43, 36), 19),
        (Resample.identity(), (21, 270), (21, 270), 6),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_regions_and_edges(
    resample: Resample, size_in: Pair, size: Pair, classes: int, layout: torch.memory_format
) -> None:
    assert_right(regions(classes, *size_in).contiguous(memory_format=layout), resample, size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("resample", [Resample.half_pixel(), Resample.deconv(8, 4)])
def test_scores_of_16_bits(dtype: torch.dtype, resample: Resample) -> None:
    assert_right(regions(19, 5, 7).to(dtype), resample, (40, 56))


@pytest.mark.parametrize("classes", [1, 2, 31, 32, 33, 65])
def test_noise_of_many_classes(classes: int) -> None:
    assert_right(torch.randn(1, classes, 3, 4), Resample.half_pixel(), (24, 32))


@pytest.mark.parametrize("resample", [Resample.half_pixel(), Resample.deconv(8, 4)])
def test_exact_ties(resample: Resample) -> None:
    scores = torch.randint(0, 3, (1, 6, 9, 40)).float()
    logits = upsampled(scores.double(), resample, (72, 320))
    assert torch.equal(label(scores, resample, (72, 320))[0], logits.argmax(1))


@pytest.mark.parametrize(
    "name", ["deconv8-border", "deconv3", "half-ragged", "half-down", "corners", "identity"]
)
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


@pytest.mark.parametrize("value", [3.3e38, 8e37, 1e-35])
def test_scores_near_the_ends_of_the_range(value: float) -> None:
    assert_right((torch.rand(1, 5, 3, 4) * 2 - 1) * value, Resample.half_pixel(), (24, 32))


def test_the_last_class_never_wins_and_all_others_tie() -> None:
    scores = torch.ones(1, 49, 3, 3)
    scores[:, 48] = 0
    scores[:, 0, 0, 0] = 0.5  # so that not every cell is decided
    labels, _ = label(scores, Resample.half_pixel(), (24, 24))
    assert torch.equal(labels, upsampled(scores.double(), Resample.half_pixel(), (24, 24)).argmax(1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("width", [1, 15, 53, 256, 257, 263, 300])
def test_stores_of_any_alignment(dtype: torch.dtype, width: int) -> None:
    scores, resample = regions(5, 4, 40), Resample.deconv(8, 4)
    labels, _ = label(scores, resample, (13, width), dtype)
    assert labels.dtype == dtype
    assert torch.equal(labels.long(), upsampled(scores.double(), resample, (13, width)).argmax(1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_rows_of_a_larger_map(dtype: torch.dtype) -> None:
    """As bands of learned upsampling write them; nothing outside is touched."""
    from fcnkern.backends.cuda import upsample_argmax as backend

    scores = torch.randn(1, 5, 6, 53)
    whole = torch.full((3, 20, 53), 77, dtype=dtype)
    confidence = torch.full((3, 20, 53), 77.0)
    backend.upsample_argmax_fwd(scores, Resample.identity(), whole[1:2, 7:13], confidence[1:2, 7:13])
    assert torch.equal(whole[1, 7:13].long(), scores[0].argmax(0))
    assert torch.allclose(confidence[1, 7:13], scores[0].softmax(0).max(0).values, rtol=1e-5)
    for each in (whole, confidence):
        each[1, 7:13] = 77
        assert bool((each == 77).all())


def test_outputs_past_the_last_point_repeat_it() -> None:
    scores, resample = regions(5, 4, 4), Resample.half_pixel(scale_factor=2.0)
    labels, _ = label(scores, resample, (13, 12))
    expected, _ = reference.upsample_argmax(scores, None, resample, (13, 12), torch.int64, False)
    assert torch.equal(labels, expected)


def test_no_images_and_too_many_classes() -> None:
    labels, confidence = label(torch.empty(0, 3, 4, 5), Resample.half_pixel(), (8, 10))
    assert labels.shape == confidence.shape == (0, 8, 10)
    with pytest.raises(ValueError, match="scores: the CUDA kernels take at most 65534 classes, got 70000"):
        label(torch.zeros(1, 70000, 1, 1), Resample.identity(), (1, 1))
