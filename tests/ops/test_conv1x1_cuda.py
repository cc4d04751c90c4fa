"""The CUDA C++ conv1x1: what only its kernels can get wrong, on the host emulator or on a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from fcnkern.backends._conv1x1_ranges import MAX_SCRATCH, RANGE
from fcnkern.backends.reference import conv1x1 as reference
from fcnkern.backends.reference.philox import element_words
from tests.ops._conv1x1 import (
    ALL,
    DEVICE,
    TOLERANCE,
    error,
    exact_results,
    make,
    poison_allocations,
    results_of,
)

cuda = pytest.importorskip(
    "fcnkern.backends.cuda.conv1x1", reason="needs the CUDA kernels", exc_type=ImportError
)
results = partial(results_of, cuda.conv1x1_fwd, cuda.conv1x1_bwd)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_allocations(monkeypatch)


def assert_exact(ours: list[Tensor], exact: list[Tensor], dtype: torch.dtype) -> None:
    for value, truth in zip(ours, exact, strict=True):
        assert value.dtype == dtype
        assert error(value, truth) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "window"])
@pytest.mark.parametrize(
    ("shape", "relu", "dropout_p"),
    [
        ((2, 72, 5, 8, 10), False, 0.3),  # copies of 16 bytes; two blocks of pixels
        ((2, 36, 24, 6, 6), True, 0.0),  # of 8 bytes in 16-bit types
        ((2, 33, 21, 3, 7), True, 0.7),  # of one element; no multiples of anything
        ((1, 40, 64, 3, 10), False, 0.0),  # the most rows of one block
        ((2, 24, 67, 3, 4), True, 0.5),  # wide
        ((3, 20, 70, 1, 1), False, 0.5),
    ],
    ids=str,
)
def test_every_mode_against_fp64(
    dtype: torch.dtype, layout: str, shape: tuple[int, ...], relu: bool, dropout_p: float
) -> None:
    args = make(shape, dtype, layout)
    seed = torch.tensor(-987654321987, device=DEVICE) if dropout_p else None
    ours = results(args, relu, dropout_p, seed)
    exact = exact_results(args, relu, dropout_p, seed, ours[0])
    if relu and shape[2] <= cuda.SKINNY:  # a wide layer's product is rounded before the bias
        assert torch.equal(ours[0] == 0, exact[0] == 0)
    assert_exact(ours, exact, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_many_channels_and_ranges_of_pixels(layout: str, dtype: torch.dtype) -> None:
    args = make(
        (1, 260, 9, 20, 31), dtype, layout
    )  # three blocks of channels, five of pixels, many tiles deep
    assert cuda._ranges(620, 9, 260) == (256, 3)
    ours, again = (results(args, False, 0.0, None) for _ in range(2))
    assert_exact(ours, exact_results(args, False, 0.0, None, ours[0]), dtype)
    assert all(torch.equal(a, b) for a, b in zip(again, ours, strict=True))


@pytest.mark.parametrize("size", [(4, 6), (3, 5)])
@pytest.mark.parametrize("p", [1e-12, 0.3, 1 - 2**-40])
@pytest.mark.parametrize("seed", [0, 2**63 - 1, -1])
@pytest.mark.parametrize("outputs", [3, 66])
def test_mask_is_bit_for_bit_the_reference(size: tuple[int, int], p: float, seed: int, outputs: int) -> None:
    shape = (3, outputs, *size)
    key = torch.tensor(seed, device=DEVICE)
    x = torch.zeros(3, 1, *size, device=DEVICE)
    weight, bias = torch.zeros(outputs, 1, 1, 1, device=DEVICE), torch.ones(outputs, device=DEVICE)
    kept = (element_words(key, x.numel() * outputs) >= p * 2**32).view(shape)
    for layout in (torch.contiguous_format, torch.channels_last):
        out = cuda.conv1x1_fwd(x.to(memory_format=layout), weight, bias, False, p, key)
        assert torch.equal(out != 0, kept)
        assert torch.equal(cuda._passing(torch.ones_like(out), out, None, p, key) != 0, kept)


@pytest.mark.parametrize("outputs", [5, 66])
def test_gradient_laid_out_otherwise_than_the_features(outputs: int) -> None:
    for layouts in (("nchw", "nhwc"), ("nhwc", "nchw"), ("window", "nhwc")):
        (x, weight, bias, _), (*_, grad) = (make((2, 12, outputs, 5, 8), layout=each) for each in layouts)
        ours = results([x, weight, bias, grad], False, 0.0, None)
        assert_exact(ours, exact_results([x, weight, bias, grad], False, 0.0, None, ours[0]), torch.float32)


@pytest.mark.parametrize("outputs", [10, 66])
def test_expanded_gradient_and_strided_weight(outputs: int) -> None:
    x, weight, bias, _ = make((2, 12, outputs, 8, 9))
    weight, features = weight[:, ::3], x[:, 1::3, ::2, ::3]
    grad = torch.ones(1, device=DEVICE).expand(2, outputs, 4, 3)
    args = [features, weight, bias, grad]
    ours = results(args, False, 0.0, None)
    assert_exact(ours, exact_results(args, False, 0.0, None, ours[0]), torch.float32)


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3]
)
def test_only_needed_gradients(needs: tuple[bool, ...]) -> None:
    for outputs in (5, 66):
        x, weight, _, grad = make((1, 33, outputs, 5, 7))
        everything = cuda.conv1x1_bwd(grad, x, weight, None, False, 0.0, None, ALL)
        some = cuda.conv1x1_bwd(grad, x, weight, None, False, 0.0, None, needs)
        for needed, got, full in zip(needs, some, everything, strict=True):
            assert (got is not None) == needed
            assert got is None or torch.equal(got, full)


def test_scored_window_of_many_outputs_goes_into_a_window() -> None:
    x, weight, bias, _ = make((2, 20, 70, 6, 8), layout="window")
    whole = torch.full((2, 70, 9, 12), 7.0, device=DEVICE)
    out = whole[:, :, 1:7, 3:11]
    cuda.score(x, weight, bias, out, 0.5)
    exact = reference.conv1x1_fwd(x.double() * 0.5, weight.double(), bias.double(), False, 0.0, None)
    assert error(out, exact) < 5e-7
    assert int((whole == 7.0).sum()) == whole.numel() - out.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_nan_and_infinity_reach_the_output_and_no_other_pixel(dtype: torch.dtype) -> None:
    x, weight, bias, _ = make((1, 9, 5, 6, 7), dtype)
    x[0, 3, 2, 4], x[0, 1, 5, 6] = float("nan"), float("inf")
    out = cuda.conv1x1_fwd(x, weight, bias, True, 0.0, None)
    expected = reference.conv1x1_fwd(x.float(), weight.float(), bias.float(), True, 0.0, None)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isinf(), expected.isinf())


@pytest.mark.parametrize("outputs", [3, 66])
def test_no_images(outputs: int) -> None:
    x, weight, bias, grad = make((0, 4, outputs, 5, 5))
    assert cuda.conv1x1_fwd(x, weight, bias, True, 0.0, None).shape == (0, outputs, 5, 5)
    _, grad_weight, grad_bias = cuda.conv1x1_bwd(grad, x, weight, None, False, 0.0, None, ALL)
    assert not grad_weight.any()
    assert not grad_bias.any()


@pytest.mark.parametrize("pixels", [1, 1000, 10**6, 10**9])
@pytest.mark.parametrize("sides", [(1, 1), (21, 512), (64, 64), (64, 25088)])
def test_ranges_cover_all_pixels_in_bounded_scratch(pixels: int, sides: tuple[int, int]) -> None:
    span, ranges = cuda._ranges(pixels, *sides)
    assert (ranges - 1) * span < pixels <= ranges * span
    assert span % RANGE == 0
    assert ranges == 1 or ranges * sides[0] * (sides[1] + 1) <= MAX_SCRATCH
