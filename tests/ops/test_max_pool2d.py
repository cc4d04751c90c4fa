"""max_pool2d on every backend, against plain PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fcnkern
from fcnkern.ops._checks import dense_format
from tests.placement import device_of, max_pool2d, placed

WINDOWS: dict[str, dict[str, Any]] = {
    "vgg": {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    "alexnet": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "inception": {"kernel_size": 3, "stride": 1, "padding": 1},
    "uneven": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)},
    "sparse": {"kernel_size": (2, 1), "stride": (3, 4), "ceil_mode": True},
    "pairs of many rows": {"kernel_size": (5, 2), "stride": (1, 2), "padding": (2, 1)},
    "wide pairs": {"kernel_size": (2, 5), "stride": 2, "padding": (1, 2)},
    "far apart": {"kernel_size": 3, "stride": (10**9, 2)},
    "wide": {"kernel_size": 5, "stride": 3, "padding": 2, "ceil_mode": True},
}
LAYOUTS = {"dense": torch.contiguous_format, "channels_last": torch.channels_last}
windows = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def plain(x: Tensor, relu: bool, window: dict[str, Any]) -> Tensor:
    return F.max_pool2d(x.relu() if relu else x, **window)


def with_gradient(pooled: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of x for slopes that are sums of few powers of two, exact in any order."""
    generator = torch.Generator().manual_seed(1)
    slopes = torch.randint(-8, 9, pooled.shape, generator=generator).to(pooled)
    return pooled.detach(), torch.autograd.grad(pooled, x, slopes)[0]


def assert_same(x: Tensor, window: dict[str, Any], relu: bool, backend: str) -> None:
    """Bit for bit PyTorch's output and gradient, in x's layout."""
    x = x.detach().requires_grad_()
    ours, gradient = with_gradient(max_pool2d(x, **window, relu=relu, backend=backend), x)
    wanted, slope = with_gradient(plain(x, relu, window), x)
    for mine, theirs, like in ((ours, wanted, x), (gradient, slope, ours)):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        assert mine.is_contiguous(memory_format=dense_format(like))


@windows
@layouts
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_same_as_pytorchs(
    backend: str, dtype: torch.dtype, relu: bool, layout: torch.memory_format, window: dict[str, Any]
) -> None:
    """Sizes of less than a vector and of several, some of whose elements are equal."""
    for shape in ((2, 19, 7, 6), (1, 3, 6, 71)):
        x = torch.where(torch.rand(shape) < 0.5, torch.randn(shape), torch.randint(-2, 3, shape))
        assert_same(x.to(dtype).contiguous(memory_format=layout), window, relu, backend)


@windows
def test_the_same_without_winners(backend: str, window: dict[str, Any]) -> None:
    x = torch.randn(1, 3, 9, 37)
    for layout in LAYOUTS.values():
        given = x.contiguous(memory_format=layout)
        assert torch.equal(max_pool2d(given, **window, backend=backend), plain(x, False, window))


@windows
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
def test_infinities_and_nan(backend: str, relu: bool, window: dict[str, Any]) -> None:
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0])
    x = special[torch.randint(0, 6, (2, 3, 10, 75))]
    for layout in LAYOUTS.values():
        assert_same(x.contiguous(memory_format=layout), window, relu, backend)


@layouts
def test_every_small_size(backend: str, layout: torch.memory_format) -> None:
    for window in ({"kernel_size": 2, "ceil_mode": True}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        for height in (1, 2, 3, 5):
            for width in (1, 2, 4):
                x = torch.randn(1, 2, height, width).contiguous(memory_format=layout)
                if height >= 2 <= width or window["kernel_size"] == 3:
                    assert_same(x, window, True, backend)


@pytest.mark.parametrize("kernel_size", [(15, 17), (17, 15)])
def test_the_largest_windows(backend: str, kernel_size: tuple[int, int]) -> None:
    """Of 255 elements, the number that stands for no winner."""
    assert_same(-torch.rand(1, 1, 21, 21), {"kernel_size": kernel_size, "stride": 2}, True, backend)


@layouts
def test_one_window_larger_than_the_map(backend: str, layout: torch.memory_format) -> None:
    """Rounded up, it counts where it does not fit, by the stride that it was given."""
    window = {"kernel_size": (3, 5), "stride": (4, 6), "ceil_mode": True}
    for height, width in ((1, 1), (2, 2), (1, 4)):
        x = torch.randn(1, 2, height, width).contiguous(memory_format=layout)
        assert_same(x, window, True, backend)


def test_a_part_of_a_map(backend: str) -> None:
    x = torch.randn(2, 4, 12, 30)[:, 1:3, 1:10, 2:29:2]
    x = x.detach().requires_grad_()
    pooled, gradient = with_gradient(max_pool2d(x, 2, relu=True, backend=backend), x)
    wanted, slope = with_gradient(plain(x, True, {"kernel_size": 2}), x)
    assert torch.equal(pooled, wanted)
    assert torch.equal(gradient, slope)


def test_only_a_byte_per_output_is_kept(backend: str) -> None:
    kept, x = [], torch.randn(1, 3, 6, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        pooled = max_pool2d(x, 2, relu=True, backend=backend)
    assert [(each.dtype, each.shape) for each in kept] == [(torch.uint8, pooled.shape)]


@pytest.mark.fp64
@pytest.mark.parametrize("window", [WINDOWS["vgg"], WINDOWS["inception"]], ids=["vgg", "inception"])
def test_gradients_of_gradients(backend: str, window: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)

    def pool(x: Tensor) -> Tensor:
        return max_pool2d(x, **window, relu=True, backend=backend)

    assert torch.autograd.gradcheck(pool, x)
    assert torch.autograd.gradgradcheck(pool, x)


def test_gradients_through_vmap(backend: str) -> None:
    """Inside, the maps do not say that they want a gradient: the backward would read winners that were not kept."""
    x = torch.randn(2, 1, 3, 6, 8, requires_grad=True)
    pool = placed(torch.vmap(partial(fcnkern.max_pool2d, kernel_size=2, backend=backend)), backend)
    pooled, gradient = with_gradient(pool(x), x)
    wanted, slope = with_gradient(plain(x.flatten(0, 1), False, {"kernel_size": 2}).unflatten(0, (2, 1)), x)
    assert torch.equal(pooled, wanted)
    assert torch.equal(gradient, slope)


def test_several_gradients_at_once(backend: str) -> None:
    x = torch.randn(1, 3, 6, 8, requires_grad=True)
    pooled = max_pool2d(x, 2, backend=backend)
    slopes = torch.randn(3, *pooled.shape)
    (ours,) = torch.autograd.grad(pooled, x, slopes, retain_graph=True, is_grads_batched=True)
    theirs = [torch.autograd.grad(pooled, x, slope, retain_graph=True)[0] for slope in slopes]
    assert torch.equal(ours, torch.stack(theirs))


@layouts
def test_opcheck(backend: str, layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 5, 6).contiguous(memory_format=layout).to(device_of(backend)).requires_grad_()
    for window in (((2, 2), (2, 2), (0, 0), True), ((3, 3), (1, 1), (1, 1), False)):
        torch.library.opcheck(torch.ops.fcnkern.max_pool2d.default, (x, *window, True, True, backend))
        pooled, winners = torch.ops.fcnkern.max_pool2d(x, *window, True, True, backend)
        args = (torch.randn_like(pooled).requires_grad_(), winners, *window, (5, 6), backend)
        torch.library.opcheck(torch.ops.fcnkern.max_pool2d_backward.default, args)


@pytest.mark.parametrize(("forced", "dynamic"), [(None, True), ("cpu", False)], ids=["free", "forced"])
def test_compile_and_export(forced: str | None, dynamic: bool) -> None:
    def pool(x: Tensor) -> Tensor:
        return max_pool2d(x, 2, ceil_mode=True, relu=True, backend=forced)

    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, dynamic=dynamic)
    for size in ((9, 11), (4, 7)):
        x = torch.randn(2, 3, *size, requires_grad=True)
        wanted, slope = with_gradient(plain(x, True, WINDOWS["vgg"]), x)
        ours, gradient = with_gradient(compiled(x), x)
        assert torch.equal(ours, wanted)
        assert torch.equal(gradient, slope)
    layer = torch.nn.Module()
    layer.forward = pool
    exported = torch.export.export(layer, (x.detach(),))
    assert torch.equal(exported.module()(x), wanted)


def test_bad_arguments_are_named() -> None:
    x = torch.randn(1, 3, 4, 4)
    with pytest.raises(ValueError, match="x must have 4 dimensions, got float32 3×4×4"):
        max_pool2d(x[0], 2)
    with pytest.raises(TypeError, match=r"x must be of type .*, got int64 1×3×4×4"):
        max_pool2d(x.long(), 2)
    with pytest.raises(ValueError, match="x must not be empty"):
        max_pool2d(x[:0], 2)
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        max_pool2d(x, 0)
    with pytest.raises(ValueError, match=r"kernel_size must span at most 255 elements, got \(16, 16\)"):
        max_pool2d(x, 16, padding=8)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        max_pool2d(x, 2, 0)
    with pytest.raises(TypeError, match=r"stride must be a whole number or a pair of them, got 1\.5"):
        max_pool2d(x, 2, (1, 1.5))
    with pytest.raises(
        ValueError, match=r"padding must be at most half of kernel_size \(3, 3\), got \(2, 0\)"
    ):
        max_pool2d(x, 3, padding=(2, 0))
    with pytest.raises(ValueError, match=r"kernel_size \(5, 5\) does not fit into x, got float32 1×3×4×4"):
        max_pool2d(x, 5)
