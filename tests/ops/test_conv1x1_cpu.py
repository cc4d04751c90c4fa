"""The C++ conv1x1: accuracy against fp64, layouts and types, dropout, and bits that no thread count changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("fcnkern.backends.cpu.conv1x1", reason="needs the compiled part")

from fcnkern._native import extension
from fcnkern.backends.cpu.conv1x1 import _before_epilogue as before_epilogue
from fcnkern.backends.cpu.conv1x1 import conv1x1_bwd, conv1x1_fwd, score_backward
from fcnkern.backends.reference import conv1x1 as reference

ALL = (True, True, True)
SHAPES = [  # N, C, O, H, W
    (1, 512, 21, 35, 33),
    (2, 33, 5, 7, 9),
    (3, 64, 64, 16, 16),
    (1, 130, 530, 5, 5),
    (1, 7, 3, 130, 131),
    (2, 1, 1, 1, 1),
]
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def make(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias and a gradient."""
    n, c, o, h, w = shape
    rng = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(n, c, h, w, generator=rng).to(dtype).to(memory_format=layout)
    grad = torch.randn(n, o, h, w, generator=rng).to(dtype).to(memory_format=layout)
    weight = (torch.randn(o, c, 1, 1, generator=rng) * c**-0.5).to(dtype)
    return x, weight, torch.randn(o, generator=rng).to(dtype), grad


def error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm().clamp_min(1e-30))


def torch_results(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    out = F.conv2d(*leaves).relu()
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def our_results(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> list[Tensor | None]:
    out = conv1x1_fwd(x, weight, bias, True, 0.0, None)
    return [out, *conv1x1_bwd(grad, x, weight, out, True, 0.0, None, ALL)]


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_stays_at_the_level_of_torch(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    args = make(shape, layout=layout)
    exact = torch_results(*(t.double() for t in args))
    for ours, theirs, truth in zip(our_results(*args), torch_results(*args), exact, strict=True):
        assert error(ours, truth) <= max(2 * error(theirs, truth), 5e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_do_not_depend_on_threads(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = make(shape, dtype)
    expected = our_results(*args)
    for threads in (1, 3, 7):
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(our_results(*args), expected, strict=True))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-15), (torch.float32, 3e-7), (torch.bfloat16, 3e-3), (torch.float16, 4e-4)],
    ids=str,
)
def test_dropout_and_types(
    dtype: torch.dtype, tolerance: float, layout: torch.memory_format, relu: bool
) -> None:
    x, weight, bias, grad = make((2, 40, 30, 9, 11), dtype, layout)
    seed = torch.tensor(-987654321987)
    out = conv1x1_fwd(x, weight, bias, relu, 0.3, seed)
    exact = reference.conv1x1_fwd(x.double(), weight.double(), bias.double(), relu, 0.3, seed)
    grads = conv1x1_bwd(grad, x, weight, out, relu, 0.3, seed, ALL)
    doubles = (grad.double(), x.double(), weight.double(), exact if relu else None)
    exact_grads = reference.conv1x1_bwd(*doubles, relu, 0.3, seed, ALL)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=layout)
    assert torch.equal(out == 0, exact == 0)
    assert 0.2 < (conv1x1_fwd(x, weight, bias, False, 0.3, seed) == 0).double().mean() < 0.4
    for ours, truth in zip((out, *grads), (exact, *exact_grads), strict=True):
        assert error(ours, truth) < tolerance


def test_any_strides() -> None:
    x, weight, bias, _ = make((2, 12, 10, 20, 18))
    window = x[:, 1::3, 3:-2:2, 5:-1]
    sliced, grad = weight[:, ::3], torch.ones(1).expand(2, 10, 8, 12)
    out = conv1x1_fwd(window, sliced, bias[::1], False, 0.0, None)
    assert error(out, F.conv2d(window.double(), sliced.double(), bias.double())) < 3e-7
    ours = conv1x1_bwd(grad, window, sliced, None, False, 0.0, None, ALL)
    doubles = (grad.double(), window.double(), sliced.double())
    exact = reference.conv1x1_bwd(*doubles, None, False, 0.0, None, ALL)
    assert all(error(a, b) < 5e-7 for a, b in zip(ours, exact, strict=True))


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3]
)
def test_only_needed_gradients(needs: tuple[bool, ...]) -> None:
    x, weight, _, grad = make((2, 33, 5, 7, 9))
    everything = conv1x1_bwd(grad, x, weight, None, False, 0.0, None, ALL)
    some = conv1x1_bwd(grad, x, weight, None, False, 0.0, None, needs)
    for needed, got, full in zip(needs, some, everything, strict=True):
        assert (got is not None) == needed
        assert got is None or torch.equal(got, full)


def test_nan_and_infinity_reach_the_output_and_no_other_pixel() -> None:
    x, weight, bias, _ = make((1, 8, 5, 6, 7))
    x[0, 3, 2, 4], x[0, 1, 5, 6] = float("nan"), float("inf")
    out = conv1x1_fwd(x, weight, bias, True, 0.0, None)
    expected = F.conv2d(x, weight, bias).relu()
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isinf(), expected.isinf())


def test_every_instruction_set_and_no_read_of_unset_memory() -> None:
    args = make((1, 70, 21, 13, 17))
    exact = torch_results(*(t.double() for t in args))
    before = extension.build_info()["isa"]
    extension.poison_scratch(True)
    try:
        for isa in extension.build_info()["isas"]:
            extension.use_isa(isa)
            assert all(error(a, b) < 5e-7 for a, b in zip(our_results(*args), exact, strict=True)), isa
    finally:
        extension.use_isa(before)
        extension.poison_scratch(False)


def test_no_images() -> None:
    x, weight, bias, grad = make((0, 4, 3, 5, 5))
    assert conv1x1_fwd(x, weight, bias, True, 0.0, None).shape == (0, 3, 5, 5)
    _, grad_weight, grad_bias = conv1x1_bwd(grad, x, weight, None, False, 0.0, None, ALL)
    assert not grad_weight.any()
    assert not grad_bias.any()


@pytest.mark.parametrize("scores", [1, 5, 21, 130, 512, 513])
@pytest.mark.parametrize("features", [47, 48, 50, 100, 257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradient_of_features_with_channels_side_by_side(
    scores: int, features: int, dtype: torch.dtype
) -> None:
    """The bits of the gradient in PyTorch's own layout, also written to a window; nothing outside is touched."""
    rng = torch.Generator().manual_seed(scores * features)
    grad = torch.randn(3, scores, 5, 9, generator=rng).to(dtype)
    weight = (torch.randn(scores, features, 1, 1, generator=rng) * scores**-0.5).to(dtype)
    x = torch.randn(3, features, 5, 9, generator=rng).to(dtype)
    wanted = x.new_empty(x.shape)
    score_backward(grad, x, weight, 0.5, wanted, None, None)
    whole = x.new_full((3, features, 8, 12), 7.0).to(memory_format=torch.channels_last)
    found = whole[:, :, 2:7, 1:10]
    last = grad.to(memory_format=torch.channels_last)
    score_backward(last, x, weight, 0.5, found, None, None)
    assert torch.equal(found, wanted)
    found.fill_(7.0)
    assert torch.equal(whole, torch.full_like(whole, 7.0))
    exact = torch.einsum("ok,nohw->nkhw", weight[:, :, 0, 0].double(), grad.double()) * 0.5
    assert error(wanted, exact) < {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 3e-3}[dtype]


@pytest.mark.parametrize("outputs", [1, 5, 64, 700, 1030])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradient_before_relu_with_channels_side_by_side(outputs: int, dtype: torch.dtype) -> None:
    """The bits of that in PyTorch's own layout; 0 where the output is 0, NaN where it is."""
    rng = torch.Generator().manual_seed(outputs)
    grad, out = (torch.randn(2, outputs, 5, 7, generator=rng).to(dtype) for _ in range(2))
    out.clamp_(min=0)[0, 0, 0, 0] = torch.nan
    wanted = before_epilogue(grad, out, 0.25, torch.tensor(3))
    dense = (tensor.to(memory_format=torch.channels_last) for tensor in (grad, out))
    found = before_epilogue(*dense, 0.25, torch.tensor(3))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, wanted)
    assert torch.equal(found == 0, out == 0)
    torch.testing.assert_close(found[1], torch.where(out[1] > 0, grad[1].to(found.dtype) / 0.75, 0))


@pytest.mark.parametrize("channels", [256, 300, 512, 700])
@pytest.mark.parametrize("outputs", [1, 21, 40, 41])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_scores_of_features_with_channels_side_by_side(
    channels: int, outputs: int, dtype: torch.dtype
) -> None:
    """Of a window of a larger map, whose rows of 9 pixels have gaps between them; the same bits for any threads."""
    rng = torch.Generator().manual_seed(channels + outputs)
    whole = torch.randn(2, channels, 8, 12, generator=rng).to(dtype).to(memory_format=torch.channels_last)
    x = whole[:, :, 2:7, 1:10]
    weight = (torch.randn(outputs, channels, 1, 1, generator=rng) * channels**-0.5).to(dtype)
    bias = torch.randn(outputs, generator=rng).to(dtype)
    out = conv1x1_fwd(x, weight, bias, False, 0.0, None)
    exact = F.conv2d(x.double(), weight.double(), bias.double())
    assert error(out, exact) < {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 3e-3}[dtype]
    torch.set_num_threads(1)
    assert torch.equal(conv1x1_fwd(x, weight, bias, False, 0.0, None), out)


@pytest.mark.parametrize("width", [1, 5, 15, 16, 17, 37, 48, 70, 111])
@pytest.mark.parametrize("outputs", [21, 64, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("level", extension.build_info()["isas"])
def test_scores_of_a_crop_are_those_of_its_copy(
    width: int, outputs: int, dtype: torch.dtype, level: str
) -> None:
    """Features are read where they lie, two rows to a register where a row ends in one."""
    rng = torch.Generator().manual_seed(width)
    whole = torch.full((2, 150, 9, 160), torch.nan, dtype=dtype)
    crop = whole[:, :, 2:7, 13 : 13 + width]
    crop.copy_(torch.randn(crop.shape, generator=rng))
    weight = (torch.randn(outputs, 150, 1, 1, generator=rng) / 12).to(dtype)
    before = extension.build_info()["isa"]
    extension.use_isa(level)
    try:
        scores = conv1x1_fwd(crop, weight, None, False, 0.0, None)
        of_copy = conv1x1_fwd(crop.contiguous(), weight, None, False, 0.0, None)
    finally:
        extension.use_isa(before)
    assert torch.equal(scores, of_copy)
    exact = F.conv2d(crop.double(), weight.double())
    assert error(scores, exact) < {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 3e-3}[dtype]
