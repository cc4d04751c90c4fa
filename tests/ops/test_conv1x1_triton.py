"""The Triton conv1x1: what only its kernels can get wrong, on CPU tensors in Triton's interpreter or on a GPU."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import pytest
import torch

from fcnkern.backends._conv1x1_ranges import MAX_SCRATCH, RANGE
from fcnkern.backends.reference import conv1x1 as reference
from fcnkern.backends.reference.philox import element_words, philox4x32

pytest.importorskip("triton", reason="needs Triton")

import triton
import triton.language as tl

from fcnkern.backends.triton import (
    _conv1x1_forward,
    _conv1x1_grad_weight,
    _conv1x1_grad_x,
    _conv1x1_pixels,
    _math,
)
from fcnkern.backends.triton._conv1x1_pixels import ONE_RUN, PLANES, ROWS, Pixels
from fcnkern.backends.triton._dropout import dropout_arguments, kept_elements
from fcnkern.backends.triton.conv1x1 import conv1x1_bwd, conv1x1_fwd
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

results = partial(results_of, conv1x1_fwd, conv1x1_bwd)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_allocations(monkeypatch)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "window"])
@pytest.mark.parametrize(
    ("shape", "relu", "dropout_p"),
    [
        ((2, 70, 5, 5, 8), False, 0.3),  # four pixels share a Philox block
        ((2, 33, 21, 3, 7), True, 0.7),  # they do not; no even number of channels or pixels
        ((1, 40, 67, 3, 4), False, 0.0),  # wide
        ((3, 20, 70, 1, 1), True, 0.5),
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
    assert torch.equal(ours[0] == 0, exact[0] == 0) or not relu
    for value, truth in zip(ours, exact, strict=True):
        assert value.dtype == dtype
        assert error(value, truth) < TOLERANCE[dtype]


@triton.jit
def _mask_kernel(
    seed, kept, last, start, plane, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, FOURS: tl.constexpr
):
    channels = tl.arange(0, CHANNELS)
    tile = kept_elements(seed, last, start + tl.zeros((), tl.int64), channels, plane, CHANNELS, BLOCK, FOURS)
    at = tl.arange(0, BLOCK)[:, None] * CHANNELS + channels[None, :]
    tl.store(kept + at, tile.to(tl.int8))


@pytest.mark.parametrize(("plane", "in_fours"), [(24, True), (24, False), (21, False)])
@pytest.mark.parametrize("p", [1e-12, 0.3, 0.5, 1 - 2**-40])
@pytest.mark.parametrize("seed", [0, 2**63 - 1, -1])
def test_mask_is_bit_for_bit_the_reference(plane: int, in_fours: bool, p: float, seed: int) -> None:
    channels, block, start = 4, 32, 16  # crosses from one image to the next
    key = torch.tensor(seed, device=DEVICE)
    dropped, last, _ = dropout_arguments(p, key)
    kept = torch.full((block, channels), 2, dtype=torch.int8, device=DEVICE)
    _mask_kernel[(1,)](key, kept, last, start, plane, CHANNELS=channels, BLOCK=block, FOURS=in_fours)
    words = element_words(key, 3 * channels * plane).view(3, channels, plane)
    expected = (words >= p * 2**32).transpose(1, 2).reshape(-1, channels)[start : start + block]
    assert dropped
    assert torch.equal(kept.bool(), expected)


def test_mask_of_elements_beyond_2_to_the_34() -> None:
    channels, plane, image = 4, 1 << 20, 5 << 13
    key = torch.tensor(77, device=DEVICE)
    kept = torch.full((32, channels), 2, dtype=torch.int8, device=DEVICE)
    _mask_kernel[(1,)](key, kept, 2**30, image * plane, plane, CHANNELS=channels, BLOCK=32, FOURS=True)
    element = (image * channels + torch.arange(channels)) * plane + torch.arange(32)[:, None]
    block = element.to(DEVICE) // 4
    zero = torch.zeros_like(block)
    words = torch.stack(philox4x32(key, (block & 0xFFFFFFFF, block >> 32, zero, zero + 1)))
    expected = words.gather(0, (element.to(DEVICE) % 4)[None])[0] > 2**30
    assert int(block.max()) > 2**32
    assert torch.equal(kept.bool(), expected)


TUNED = [
    (module, name, index)
    for module in (_conv1x1_forward, _conv1x1_grad_x, _conv1x1_grad_weight)
    for name in ("_SKINNY", "_WIDE")
    for index in range(1, len(getattr(module, name).configs))
]


@pytest.mark.parametrize(("module", "name", "index"), TUNED, ids=lambda each: getattr(each, "__name__", each))
def test_every_configuration(
    module: ModuleType, name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = getattr(module, name)
    monkeypatch.setattr(tuned, "default", lambda: tuned.configs[index])
    args = make((1, 40, 5 if name == "_SKINNY" else 66, 5, 8))
    seed = torch.tensor(3, device=DEVICE)
    ours = results(args, False, 0.3, seed)
    for value, truth in zip(ours, exact_results(args, False, 0.3, seed, ours[0]), strict=True):
        assert error(value, truth) < 5e-7


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_sums_over_several_ranges_of_pixels_do_not_depend_on_the_run(layout: str) -> None:
    x, weight, _, grad = make((1, 9, 3, 25, 31), layout=layout)
    assert _conv1x1_grad_weight._ranges(25 * 31, 3, 9)[1] == 4
    needs = (False, True, True)
    ours, again = (conv1x1_bwd(grad, x, weight, None, False, 0.0, None, needs)[1:] for _ in range(2))
    doubles = (grad.double(), x.double(), weight.double())
    exact = reference.conv1x1_bwd(*doubles, None, False, 0.0, None, needs)[1:]
    for value, truth in zip(ours, exact, strict=True):
        assert error(value, truth) < 5e-7
    assert all(torch.equal(a, b) for a, b in zip(again, ours, strict=True))


@pytest.mark.parametrize("pixels", [1, 1000, 10**6, 10**9])
@pytest.mark.parametrize("sides", [(1, 1), (21, 512), (64, 64), (1000, 4096), (4096, 25088)])
def test_ranges_cover_all_pixels_in_bounded_scratch(pixels: int, sides: tuple[int, int]) -> None:
    span, ranges = _conv1x1_grad_weight._ranges(pixels, *sides)
    assert (ranges - 1) * span < pixels <= ranges * span
    assert span % RANGE == 0
    assert ranges == 1 or ranges * sides[0] * (sides[1] + 1) <= MAX_SCRATCH


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3]
)
def test_only_needed_gradients(needs: tuple[bool, ...]) -> None:
    x, weight, _, grad = make((1, 33, 5, 17, 19))
    everything = conv1x1_bwd(grad, x, weight, None, False, 0.0, None, ALL)
    some = conv1x1_bwd(grad, x, weight, None, False, 0.0, None, needs)
    for needed, got, full in zip(needs, some, everything, strict=True):
        assert (got is not None) == needed
        assert got is None or error(got, full.double()) < 5e-7


def test_expanded_gradient_and_strided_weight() -> None:
    x, weight, bias, _ = make((2, 12, 10, 8, 9))
    weight, features = weight[:, ::3], x[:, 1::3, ::2, ::3]
    grad = torch.ones(1, device=DEVICE).expand(2, 10, 4, 3)
    args = [features, weight, bias, grad]
    ours = results(args, False, 0.0, None)
    for value, truth in zip(ours, exact_results(args, False, 0.0, None, ours[0]), strict=True):
        assert error(value, truth) < 5e-7


def test_nan_and_infinity_reach_the_output_and_no_other_pixel() -> None:
    x, weight, bias, _ = make((1, 8, 5, 6, 7))
    x[0, 3, 2, 4], x[0, 1, 5, 6] = float("nan"), float("inf")
    out = conv1x1_fwd(x, weight, bias, True, 0.0, None)
    expected = reference.conv1x1_fwd(x, weight, bias, True, 0.0, None)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isinf(), expected.isinf())


def test_no_images() -> None:
    x, weight, bias, grad = make((0, 4, 3, 5, 5))
    assert conv1x1_fwd(x, weight, bias, True, 0.0, None).shape == (0, 3, 5, 5)
    _, grad_weight, grad_bias = conv1x1_bwd(grad, x, weight, None, False, 0.0, None, ALL)
    assert not grad_weight.any()
    assert not grad_bias.any()


def test_products_of_tf32_parts_are_added_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_conv1x1_pixels, "precision", lambda tensor: "tf32x3")
    args = make((1, 70, 5, 5, 5))
    ours = results(args, False, 0.0, None)
    for value, truth in zip(ours, exact_results(args, False, 0.0, None, ours[0]), strict=True):
        assert error(value, truth) < 5e-7


def test_precision_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the user says it: PyTorch refuses to read one of its two settings where the other was set."""
    single, half = torch.empty(0), torch.empty(0, dtype=torch.bfloat16)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    monkeypatch.setattr(_math, "_has_tf32", lambda device: True)
    try:
        assert (_math.precision(single), _math.precision(half)) == ("tf32x3", "ieee")
        matmul.allow_tf32 = True
        assert _math.precision(single) == "tf32"
        matmul.allow_tf32 = False
        matmul.fp32_precision = "tf32"
        assert (_math.precision(single), _math.precision(half)) == ("tf32", "ieee")
        monkeypatch.setattr(_math, "_has_tf32", lambda device: False)
        assert _math.precision(single) == "ieee"  # not every target knows the name of what it cannot do
        _ = results(make((1, 3, 5, 2, 2)), False, 0.0, None)
    finally:
        matmul.fp32_precision = before


def test_pixels_merge_as_far_as_the_strides_allow() -> None:
    nchw, nhwc = torch.zeros(2, 6, 4, 8), torch.zeros(2, 6, 4, 8).to(memory_format=torch.channels_last)
    assert Pixels.of(nchw)[:4] == (PLANES, 64, 32, 0)
    assert Pixels.of(nchw).align == 16
    assert Pixels.of(nhwc)[:4] == (ONE_RUN, 64, 32, 0)
    assert Pixels.of(nhwc).strides == ((0, 1, 0, 6),)
    assert Pixels.of(nchw, nhwc).geometry == PLANES
    assert Pixels.of(nchw, nhwc).align == 1
    assert Pixels.of(nchw[:1]).geometry == ONE_RUN
    assert Pixels.of(nchw[..., :3, :]).geometry == PLANES
    assert Pixels.of(nchw[..., :4])[:4] == (ROWS, 32, 16, 4)
    assert Pixels.of(nchw[..., :4]).align == 4
    assert Pixels.of(nchw[..., :1, :1]).strides == ((0, 32, 0, 192),)
    assert Pixels.of(nchw.transpose(2, 3)).geometry == ROWS
