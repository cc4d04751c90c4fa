"""upsample_argmax on every backend, against plain PyTorch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fcnkern import Resample
from fcnkern.nn import UpsampleArgmax
from tests.ops._truth import GEOMETRIES, upsampled
from tests.placement import device_of, upsample_argmax

SIZE = (35, 40)
DECONV = Resample.deconv(8, 11, SIZE)


def assert_largest(labels: Tensor, logits: Tensor, slack: float) -> None:
    """Every label is the argmax, or a class within ``slack`` of it where rounding may decide."""
    best = logits.max(1).values
    chosen = logits.gather(1, labels.long()[:, None])[:, 0]
    assert float((best - chosen).max()) <= slack
    assert float((labels.long() == logits.argmax(1)).float().mean()) > 0.999


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry(backend: str, name: str) -> None:
    size_in, size_out, resample = GEOMETRIES[name]
    scores = torch.randn(2, 7, *size_in)
    sized = replace(resample, size=size_out)
    labels = upsample_argmax(scores, sized, backend=backend)
    assert labels.shape == (2, *size_out)
    assert labels.dtype == torch.uint8
    assert_largest(labels, upsampled(scores.double(), resample, size_out), 1e-5)


@pytest.mark.parametrize(
    ("classes", "out_dtype"),
    [
        *((c, dtype) for c in (1, 2, 21) for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)),
        (256, torch.uint8),
        (300, torch.uint8),
        (300, torch.int16),
    ],
)
def test_classes_and_output_types(backend: str, classes: int, out_dtype: torch.dtype) -> None:
    scores = torch.randn(1, classes, 6, 7)
    if out_dtype == torch.uint8 and classes > 256:
        with pytest.raises(
            ValueError, match=r"out_dtype uint8 holds 256 classes, got 300; ask for torch\.int16"
        ):
            upsample_argmax(scores, DECONV, out_dtype=out_dtype, backend=backend)
        return
    labels = upsample_argmax(scores, DECONV, out_dtype=out_dtype, backend=backend)
    assert labels.dtype == out_dtype
    assert_largest(labels, upsampled(scores.double(), DECONV, SIZE), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "strided"])
def test_dtypes_layouts_and_confidence(backend: str, dtype: torch.dtype, layout: str) -> None:
    scores = (torch.randn(2, 7, 6, 7) * 2).to(dtype)
    if layout == "channels_last":
        scores = scores.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        scores = scores.repeat_interleave(2, dim=3)[:, :, :, ::2]
    labels, confidence = upsample_argmax(scores, DECONV, return_confidence=True, backend=backend)
    logits = upsampled(scores.double().contiguous(), DECONV, SIZE)
    assert_largest(labels, logits, 1e-5)
    assert confidence.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(confidence.double(), logits.softmax(1).max(1).values, atol=2e-6)


@pytest.mark.parametrize("resample", [DECONV, Resample.half_pixel(SIZE), Resample.align_corners(SIZE)])
def test_ties_go_to_the_lowest_class(backend: str, resample: Resample) -> None:
    scores = torch.zeros(1, 6, 6, 7)
    scores[:, [2, 4]] = torch.randn(6, 7)
    labels = upsample_argmax(scores, resample, backend=backend)
    logits = upsampled(scores.double(), resample, SIZE)
    expected = torch.where(logits[:, 2] > 0, 2, 0)
    unsure = logits[:, 2].abs() < 1e-6
    assert torch.equal(labels.long()[~unsure], expected[~unsure])
    same = torch.zeros(1, 6, 6, 7)
    assert int(upsample_argmax(same, resample, backend=backend).max()) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_scores(backend: str, value: float) -> None:
    scores = torch.randn(1, 7, 6, 7)
    scores[0, 3, 2, 4] = value
    resample = Resample.half_pixel((24, 28))
    labels = upsample_argmax(scores, resample, backend=backend)
    logits = upsampled(scores, resample, (24, 28))
    assert torch.equal(labels.long(), logits.argmax(1))


@pytest.mark.parametrize(("points", "width"), [(3, 7), (3, 11), (5, 11)])
def test_an_output_on_a_point_reads_no_infinity_before_it(backend: str, points: int, width: int) -> None:
    """Also where the rounded position falls short of the point: a class masked there must not win as NaN."""
    scores = torch.ones(1, 2, 2, points)
    scores[:, 1] = 0.0
    scores[:, 1, :, points // 2 - 1] = float("-inf")
    labels = upsample_argmax(scores, Resample.half_pixel(size=(4, width)), backend=backend)
    assert labels[0, 1, width // 2] == 0


@pytest.mark.parametrize("shape", [(7, 7, 16, 16), (7, 1, 16, 16), (7, 9, 13, 15)])
def test_learned_weight(backend: str, shape: tuple[int, ...]) -> None:
    scores, weight = torch.randn(2, 7, 6, 7), torch.randn(shape)
    labels = upsample_argmax(scores, DECONV, weight=weight, backend=backend)
    assert_largest(labels, upsampled(scores.double(), DECONV, SIZE, weight.double()), 1e-4)


def test_size_of_the_whole_output(backend: str) -> None:
    scores = torch.randn(1, 3, 6, 7)
    for resample, size in (
        (Resample.deconv(8, 11), (45, 53)),
        (Resample.deconv(3), (20, 23)),
        (Resample.identity(), (6, 7)),
        (Resample.half_pixel(scale_factor=2.5), (15, 17)),
    ):
        assert upsample_argmax(scores, resample, backend=backend).shape == (1, *size)
    with pytest.raises(ValueError, match=r"half_pixel needs size=\(H, W\)"):
        upsample_argmax(scores, Resample.half_pixel(), backend=backend)
    with pytest.raises(ValueError, match="leaves no output"):
        upsample_argmax(scores, Resample.deconv(8, 60), backend=backend)


def test_bad_arguments_are_named() -> None:
    scores = torch.randn(1, 3, 6, 7)
    with pytest.raises(
        TypeError, match=r"out_dtype must be uint8, int16, int32 or int64, got torch\.float32"
    ):
        upsample_argmax(scores, DECONV, out_dtype=torch.float32)
    with pytest.raises(TypeError, match="resample must be a Resample, got int"):
        upsample_argmax(scores, 8)
    with pytest.raises(ValueError, match="at most 45×53 outputs, 46×40 were asked"):
        upsample_argmax(scores, Resample.deconv(8, 11, (46, 40)))
    many = torch.zeros(1, 1, 1, 1).expand(1, 40000, 1, 1)
    with pytest.raises(ValueError, match=r"int16 holds 32768 classes, got 40000; ask for torch\.int32"):
        upsample_argmax(many, Resample.identity(), out_dtype=torch.int16)


def test_opcheck_compile_and_no_gradient(backend: str) -> None:
    scores = torch.randn(2, 7, 6, 7, requires_grad=True)
    _, confidence = upsample_argmax(scores, DECONV, return_confidence=True, backend=backend)
    assert not confidence.requires_grad
    args = (
        scores.detach().to(device_of(backend)),
        None,
        "deconv:8,8:11,11",
        list(SIZE),
        torch.uint8,
        True,
        backend,
    )
    torch.library.opcheck(torch.ops.fcnkern.upsample_argmax.default, args)
    torch._dynamo.reset()
    compiled = torch.compile(UpsampleArgmax(DECONV), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(scores), UpsampleArgmax(DECONV)(scores))
