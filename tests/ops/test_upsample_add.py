"""upsample_add on every backend, against plain PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern.nn import UpsampleAdd
from tests.ops._truth import assert_as_exact_as_torch, bilinear
from tests.placement import device_of, refusal, upsample_add

NAMES = ("output", "x", "weight", "skip", "skip_weight", "skip_bias")


def plain(
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    stride: tuple[int, int],
    skip_offset: tuple[int, int],
    skip_scale: float,
) -> Tensor:
    """The same in five operations."""
    channels = x.shape[1]
    kernel = bilinear(channels, stride, x.dtype) if weight is None else weight
    groups = channels if kernel.shape[1] == 1 and channels > 1 else 1
    out = F.conv_transpose2d(x, kernel, stride=stride, groups=groups)
    if skip is None:
        return out
    scored = skip * skip_scale
    if skip_weight is not None:
        scored = F.conv2d(scored, skip_weight, skip_bias)
    oy, ox = skip_offset
    return out + scored[:, :, oy : oy + out.shape[2], ox : ox + out.shape[3]]


def ours(*tensors: Tensor | None, backend: str | None = None, **options: Any) -> Tensor:
    x, weight, skip, skip_weight, skip_bias = tensors
    assert x is not None
    return upsample_add(
        x, weight, skip, skip_weight=skip_weight, skip_bias=skip_bias, backend=backend, **options
    )


def results(
    function: Any, inputs: list[Tensor | None], dtype: torch.dtype, **options: Any
) -> dict[str, Tensor]:
    """Output and the gradient of each input that is there."""
    leaves = [None if tensor is None else tensor.to(dtype).detach().requires_grad_() for tensor in inputs]
    out = function(*leaves, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).to(dtype)
    there = [leaf for leaf in leaves if leaf is not None]
    grads = iter(torch.autograd.grad(out, there, weights))
    found = {NAMES[0]: out.detach()}
    for name, leaf in zip(NAMES[1:], leaves, strict=True):
        if leaf is not None:
            found[name] = next(grads)
    return found


def check(
    backend: str, inputs: list[Tensor | None], dtype: torch.dtype = torch.float32, **options: Any
) -> None:
    found = results(ours, inputs, dtype, backend=backend, **options)
    for name, value in found.items():
        assert value.dtype == dtype
        assert_as_exact_as_torch(
            value, lambda kind, name=name: results(plain, inputs, kind, **options)[name], dtype, name
        )


def problem(
    weight: str | None,
    skip: str | None,
    stride: tuple[int, int] = (2, 2),
    offset: tuple[int, int] = (5, 4),
    size: tuple[int, int] = (5, 6),
    kernel: tuple[int, int] | None = None,
) -> tuple[list[Tensor | None], dict[str, Any]]:
    """fp64 inputs for a kind of weight and skip, and the settings."""
    classes, features = 6, 40
    kh, kw = kernel or tuple(2 * s - s % 2 for s in stride)
    shapes = {None: None, "dense": (5, classes, kh, kw), "depthwise": (classes, 1, kh, kw)}
    shape = shapes[weight]
    channels = 5 if weight == "dense" else classes

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=torch.float64)

    height, width = (size[0] - 1) * stride[0] + kh, (size[1] - 1) * stride[1] + kw
    window = (height + offset[0] + 3, width + offset[1] + 2)
    inputs = [
        draw(2, channels, *size),
        None if shape is None else draw(*shape),
        None if skip is None else draw(2, features if skip == "features" else classes, *window),
        draw(classes, features, 1, 1) if skip == "features" else None,
        draw(classes) if skip == "features" else None,
    ]
    return inputs, {"stride": stride, "skip_offset": offset, "skip_scale": 1.0}


def at_most(lengths: tuple[int, int], most: int, backend: str) -> tuple[int, int]:
    """Lengths of a kernel or a stride, cut under Triton's interpreter: there each phase is a slow program."""
    interpreted = backend == "triton" and device_of(backend) == "cpu"
    return (min(lengths[0], most), min(lengths[1], most)) if interpreted else lengths


@pytest.mark.parametrize("weight", [None, "dense", "depthwise"])
@pytest.mark.parametrize("skip", [None, "scores", "features"])
@pytest.mark.parametrize("stride", [(2, 2), (8, 8), (3, 2)])
def test_kinds_of_weight_and_skip(
    backend: str, weight: str | None, skip: str | None, stride: tuple[int, int]
) -> None:
    inputs, options = problem(weight, skip, at_most(stride, 4, backend))
    check(backend, inputs, **options)


@pytest.mark.parametrize("weight", ["dense", "depthwise"])
@pytest.mark.parametrize(
    ("stride", "kernel"),
    [((32, 32), (63, 64)), ((2, 2), (3, 5)), ((4, 3), (2, 2)), ((1, 1), (3, 3)), ((2, 2), (1, 1))],
)
def test_kernels_and_strides(
    backend: str, weight: str, stride: tuple[int, int], kernel: tuple[int, int]
) -> None:
    stride, kernel = at_most(stride, 8, backend), at_most(kernel, 15, backend)
    inputs, options = problem(weight, "scores", stride, size=(3, 4), kernel=kernel)
    check(backend, inputs, **options)


@pytest.mark.parametrize("skip", ["scores", "features"])
def test_scale_of_the_skip(backend: str, skip: str) -> None:
    inputs, options = problem("dense", skip)
    check(backend, inputs, **options | {"skip_scale": 0.01})


@pytest.mark.skipif(refusal("cuda") is not None, reason=str(refusal("cuda")))
@pytest.mark.parametrize("skip", ["scores", "features"])
def test_gradient_around_the_window_is_zero_and_alone_is_cleared(
    skip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fcnkern.backends.cuda.upsample_add import upsample_add_bwd

    device = device_of("cuda")
    cleared = []
    zero = Tensor.zero_

    def watched(tensor: Tensor) -> Tensor:
        cleared.append(tensor.numel())
        return zero(tensor)

    def poisoned(like: Tensor, **options: Any) -> Tensor:
        return torch.full_like(like, torch.nan, **options)

    given = torch.randn(1, 3, 12, 14, device=device)
    weight = torch.randn(3, 3, 1, 1, device=device) if skip == "features" else None
    grad, x = torch.randn(1, 3, 8, 10, device=device), torch.randn(1, 3, 3, 4, device=device)
    monkeypatch.setattr(Tensor, "zero_", watched)
    monkeypatch.setattr(torch, "empty_like", poisoned)
    needs = (False, False, True, False, False)
    found = upsample_add_bwd(grad, x, None, given, weight, (2, 2), (1, 3), 1.0, needs)[2]
    expected = torch.zeros_like(given)
    inside = grad if weight is None else torch.einsum("nohw,oi->nihw", grad, weight.flatten(1))
    expected[:, :, 1:9, 3:13] = inside
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert sum(cleared) == given.numel() - grad.numel()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(backend: str, dtype: torch.dtype) -> None:
    inputs, options = problem("dense", "features")
    rounded = [None if each is None else each.to(dtype).double() for each in inputs]
    check(backend, rounded, dtype, **options)


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
@pytest.mark.parametrize("skip", ["scores", "features"])
def test_layouts(backend: str, layout: str, skip: str) -> None:
    inputs, options = problem("dense", skip)
    tensors = [None if each is None else each.float() for each in inputs]

    def laid(tensor: Tensor | None, index: int) -> Tensor | None:
        if tensor is None or index not in (0, 2):
            return tensor
        if layout == "channels_last":
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor.repeat_interleave(2, dim=3)[:, :, :, ::2]

    leaves = [laid(each, i) for i, each in enumerate(tensors)]
    leaves = [None if each is None else each.detach().requires_grad_() for each in leaves]
    twins = [None if each is None else each.clone().requires_grad_() for each in tensors]
    out, truth = ours(*leaves, backend=backend, **options), plain(*twins, **options)
    out.square().sum().backward()
    truth.square().sum().backward()
    assert torch.allclose(out, truth, rtol=1e-4, atol=1e-4)
    for leaf, twin in zip(leaves, twins, strict=True):
        if leaf is not None:
            assert torch.allclose(leaf.grad, twin.grad, rtol=1e-3, atol=1e-2)


def test_bad_arguments_are_named() -> None:
    inputs, _ = problem("dense", "features")
    x, weight, skip, skip_weight, skip_bias = (None if each is None else each.float() for each in inputs)
    with pytest.raises(ValueError, match=r"skip is too small for the crop: 12×20, wanted at least 17×18"):
        upsample_add(x, weight, skip[:, :, :12], stride=2, skip_offset=(5, 4), skip_weight=skip_weight)
    with pytest.raises(ValueError, match="weight must have 5 input channels"):
        upsample_add(x, weight[:3], stride=2)
    with pytest.raises(ValueError, match="skip must have 6 channels"):
        upsample_add(x, weight, skip, stride=2)
    with pytest.raises(ValueError, match="skip must hold 2 images"):
        upsample_add(x, weight, skip[:1], stride=2, skip_weight=skip_weight)
    with pytest.raises(ValueError, match="skip_weight must be 6×40×1×1"):
        upsample_add(x, weight, skip, stride=2, skip_weight=skip_weight[:, :3])
    with pytest.raises(ValueError, match="skip_weight and skip_bias need skip"):
        upsample_add(x, weight, stride=2, skip_weight=skip_weight)
    for name in ("weight", "skip", "skip_weight", "skip_bias"):
        given = {"skip": skip, "skip_weight": skip_weight, name: 5}
        with pytest.raises(TypeError, match=f"^{name} must be a tensor, got int"):
            upsample_add(x, stride=2, **given)
    with pytest.raises(ValueError, match="skip_bias needs skip_weight"):
        upsample_add(x, weight, skip[:, :6], stride=2, skip_bias=skip_bias)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        upsample_add(x, weight, stride=0)
    with pytest.raises(TypeError, match=r"stride must be a whole number or a pair of them, got 2\.0"):
        upsample_add(x, weight, stride=2.0)
    with pytest.raises(TypeError, match="x must be of type"):
        upsample_add(x.int(), weight, stride=2)
    with pytest.raises(TypeError, match=r"skip must be torch\.float32 as x is"):
        upsample_add(x, weight, skip.double(), stride=2, skip_weight=skip_weight)


def small_leaves() -> tuple[list[Tensor], dict[str, Any]]:
    inputs, options = problem("dense", "features", size=(2, 2))
    small = [each if each is None else each[:1, :3] if each.dim() == 4 else each for each in inputs]
    small[0], small[1] = inputs[0][:1], inputs[1]
    small[3] = inputs[3][:, :3]
    return [each.detach().requires_grad_() for each in small], options


def test_several_gradients_at_once(backend: str) -> None:
    inputs, options = small_leaves()
    leaves = [each.detach().float().requires_grad_() for each in inputs]
    for wanted in (leaves, leaves[2:3], leaves[4:]):
        out = ours(*leaves, backend=backend, **options)
        slopes = torch.randn(3, *out.shape)
        at_once = torch.autograd.grad(out, wanted, slopes, retain_graph=True, is_grads_batched=True)
        one_by_one = [torch.autograd.grad(out, wanted, slope, retain_graph=True) for slope in slopes]
        for each, theirs in zip(at_once, zip(*one_by_one, strict=True), strict=True):
            torch.testing.assert_close(each, torch.stack(theirs))


@pytest.mark.fp64
def test_gradcheck(backend: str) -> None:
    leaves, options = small_leaves()
    assert torch.autograd.gradcheck(lambda *each: ours(*each, backend=backend, **options), leaves)


def test_opcheck(backend: str) -> None:
    tensors = [each.detach().float().to(device_of(backend)).requires_grad_() for each in small_leaves()[0]]
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = [each.detach().to(memory_format=layout).requires_grad_() for each in tensors[:4]]
        args = (*laid, tensors[4], [2, 2], [5, 4], 1.0, backend)
        torch.library.opcheck(torch.ops.fcnkern.upsample_add.default, args)


def test_compile_and_export() -> None:
    torch._dynamo.reset()
    layer = UpsampleAdd(6, 2, skip_offset=5, skip_channels=40, learned="dense")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for size in ((5, 6), (4, 7)):
        x = torch.randn(2, 6, *size, requires_grad=True)
        skip = torch.randn(2, 40, 2 * size[0] + 9, 2 * size[1] + 9)
        (ours_,) = torch.autograd.grad(compiled(x, skip).sum(), x)
        (eager,) = torch.autograd.grad(layer(x, skip).sum(), x)
        assert torch.equal(ours_, eager)
    exported = torch.export.export(layer, (x.detach(), skip))
    assert torch.equal(exported.module()(x, skip), layer(x, skip))


def test_module_starts_bilinear_with_a_silent_skip() -> None:
    x, skip = torch.randn(1, 6, 5, 6), torch.randn(1, 40, 20, 20)
    fixed = UpsampleAdd(6, 2)(x)
    for learned in ("dense", "depthwise"):
        layer = UpsampleAdd(6, 2, skip_offset=5, skip_channels=40, learned=learned)
        assert torch.allclose(layer(x, skip), fixed, atol=1e-6)
    with pytest.raises(ValueError, match="learned must be None, 'depthwise' or 'dense', got 'yes'"):
        UpsampleAdd(6, 2, learned="yes")


def test_autocast_runs_in_low_precision(backend: str) -> None:
    inputs, options = problem("dense", "features")
    leaves = [each.float().requires_grad_() for each in inputs]
    with torch.autocast(device_of(backend), dtype=torch.bfloat16):
        out = ours(*leaves, backend=backend, **options)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves)
