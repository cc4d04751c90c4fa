"""conv1x1 on every backend, against plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern.nn import Conv1x1
from tests.ops._truth import assert_as_exact_as_torch
from tests.placement import conv1x1, device_of


def problem(
    channels: int = 20, outputs: int = 7, size: tuple[int, int] = (9, 11), images: int = 2
) -> list[Tensor]:
    """fp64 x, weight and bias."""
    shapes = ((images, channels, *size), (outputs, channels, 1, 1), (outputs,))
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def results(
    function: Callable[..., Tensor], inputs: list[Tensor], dtype: torch.dtype, **options: object
) -> list[Tensor]:
    """Output and gradients of x, weight and bias."""
    leaves = [tensor.to(dtype).detach().requires_grad_() for tensor in inputs]
    out = function(*leaves, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).to(dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, weights)]


def plain(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    out = F.conv2d(x, weight, bias)
    return out.relu() if relu else out


@pytest.mark.parametrize(
    "shape",
    [
        (20, 7, (9, 11), 2),
        (1, 1, (1, 1), 1),
        (512, 21, (13, 7), 1),
        (130, 70, (5, 5), 3),
        (3, 64, (33, 2), 1),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_output_and_gradients(backend: str, shape: tuple, relu: bool) -> None:
    inputs = problem(*shape)
    ours = results(conv1x1, inputs, torch.float32, relu=relu, backend=backend)
    for index, name in enumerate(("output", "x gradient", "weight gradient", "bias gradient")):
        assert_as_exact_as_torch(
            ours[index],
            lambda kind, index=index: results(plain, inputs, kind, relu=relu)[index],
            torch.float32,
            name,
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(backend: str, dtype: torch.dtype) -> None:
    inputs = [tensor.to(dtype).double() for tensor in problem()]
    ours = results(conv1x1, inputs, dtype, backend=backend)
    for index, name in enumerate(("output", "x gradient", "weight gradient", "bias gradient")):
        assert ours[index].dtype == dtype
        assert_as_exact_as_torch(
            ours[index], lambda kind, index=index: results(plain, inputs, kind)[index], dtype, name
        )


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
def test_layouts(backend: str, layout: str) -> None:
    x, weight, bias = (tensor.float() for tensor in problem())
    given = x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        given = x.repeat_interleave(2, dim=2)[:, :, ::2]
    leaf = given.detach().requires_grad_()
    out = conv1x1(leaf, weight, bias, backend=backend)
    out.square().sum().backward()
    plain_leaf = x.clone().requires_grad_()
    plain(plain_leaf, weight, bias).square().sum().backward()
    assert torch.allclose(out, plain(x, weight, bias), rtol=1e-5, atol=1e-5)
    assert torch.allclose(leaf.grad, plain_leaf.grad, rtol=1e-4, atol=1e-4)
    assert out.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


def test_dropout_mask_is_that_of_the_seed(backend: str) -> None:
    x, weight, bias = (tensor.float() for tensor in problem())
    x.requires_grad_()
    p, seed = 0.4, 2**63 + 12345
    out = conv1x1(x, weight, bias, dropout_p=p, seed=seed, backend=backend)
    same = conv1x1(x, weight, bias, dropout_p=p, seed=seed, backend="reference")
    assert torch.equal(out == 0, same == 0)
    assert torch.allclose(out, same, rtol=1e-5, atol=1e-5)
    kept = out != 0
    assert abs(float(kept.float().mean()) - 0.6) < 0.05
    assert torch.allclose(out[kept], plain(x, weight, bias)[kept] / (1 - p), rtol=1e-4, atol=1e-5)
    (grad,) = torch.autograd.grad(out.sum(), x)
    (truth,) = torch.autograd.grad(plain(x, weight, bias), x, kept / (1 - p))
    assert torch.allclose(grad, truth, rtol=1e-4, atol=1e-5)


def test_module_draws_dropout_from_torch_and_not_in_eval() -> None:
    layer = Conv1x1(20, 7, relu=True, dropout_p=0.5)
    x = torch.randn(1, 20, 5, 5)
    torch.manual_seed(1)
    first = layer(x)
    assert not torch.equal(first, layer(x))
    torch.manual_seed(1)
    assert torch.equal(first, layer(x))
    assert torch.allclose(layer.eval()(x), plain(x, layer.weight, layer.bias, relu=True), atol=1e-5)


def test_without_bias_and_only_the_gradients_asked_for(backend: str) -> None:
    x, weight, _ = (tensor.float() for tensor in problem())
    weight.requires_grad_()
    conv1x1(x, weight, backend=backend).sum().backward()
    assert torch.allclose(weight.grad[:, :, 0, 0], x.sum((0, 2, 3)).expand(7, 20), rtol=1e-4, atol=1e-4)
    assert x.grad is None


def test_bad_arguments_are_named() -> None:
    x, weight, bias = (tensor.float() for tensor in problem())
    with pytest.raises(ValueError, match="x must have 4 dimensions, got float32 20×9×11"):
        conv1x1(x[0], weight, bias)
    with pytest.raises(ValueError, match="weight must be 7×20×1×1"):
        conv1x1(x, weight[:, :5], bias)
    with pytest.raises(TypeError, match=r"weight must be torch\.float32 as x is, got torch\.float64"):
        conv1x1(x, weight.double(), bias)
    with pytest.raises(ValueError, match=r"bias must be 7 \(O of weight\), got float32 3"):
        conv1x1(x, weight, bias[:3])
    with pytest.raises(TypeError, match="bias must be a tensor, got int"):
        conv1x1(x, weight, 5)
    with pytest.raises(ValueError, match=r"dropout_p must lie in \[0, 1\), got 1\.0"):
        conv1x1(x, weight, bias, dropout_p=1.0)
    with pytest.raises(ValueError, match="x must not be empty"):
        conv1x1(x[:, :, :0], weight, bias)
    with pytest.raises(ValueError, match="weight must not be empty, got float32 0×20×1×1"):
        conv1x1(x, weight[:0])
    with pytest.raises(ValueError, match="seed must be an int64 tensor of one element"):
        conv1x1(x, weight, bias, dropout_p=0.5, seed=torch.ones(2))
    with pytest.raises(TypeError, match=r"seed must be a whole number or an int64 tensor, got 1\.5"):
        conv1x1(x, weight, bias, dropout_p=0.5, seed=1.5)


def test_several_gradients_at_once(backend: str) -> None:
    leaves = [each.float().requires_grad_() for each in problem(4, 3, (2, 3), 1)]
    for wanted in (leaves, leaves[:1], leaves[2:]):
        out = conv1x1(*leaves, relu=True, dropout_p=0.3, seed=5, backend=backend)
        slopes = torch.randn(3, *out.shape)
        ours = torch.autograd.grad(out, wanted, slopes, retain_graph=True, is_grads_batched=True)
        one_by_one = [torch.autograd.grad(out, wanted, slope, retain_graph=True) for slope in slopes]
        for each, theirs in zip(ours, zip(*one_by_one, strict=True), strict=True):
            torch.testing.assert_close(each, torch.stack(theirs))


@pytest.mark.fp64
def test_gradcheck(backend: str) -> None:
    inputs = [tensor.requires_grad_() for tensor in problem(4, 3, (2, 3), 1)]

    def dropped(*leaves: Tensor) -> Tensor:
        return conv1x1(*leaves, relu=True, dropout_p=0.3, seed=5, backend=backend)

    assert torch.autograd.gradcheck(dropped, inputs)


def test_opcheck(backend: str) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x, weight, bias = (tensor.float().to(device_of(backend)) for tensor in problem(8, 3, (2, 6), 1))
        leaves = [each.requires_grad_() for each in (x.to(memory_format=layout), weight, bias)]
        args = (*leaves, torch.tensor(5, device=x.device), True, 0.3, backend)
        torch.library.opcheck(torch.ops.fcnkern.conv1x1.default, args)


def test_compile_and_export() -> None:
    torch._dynamo.reset()
    layer = Conv1x1(20, 7, relu=True)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for size in ((9, 11), (4, 6)):
        x = torch.randn(2, 20, *size, requires_grad=True)
        (ours,) = torch.autograd.grad(compiled(x).sum(), x)
        (eager,) = torch.autograd.grad(layer(x).sum(), x)
        assert torch.equal(ours, eager)
    exported = torch.export.export(layer, (x.detach(),))
    assert torch.equal(exported.module()(x), layer(x))


def test_autocast_runs_in_low_precision(backend: str) -> None:
    x, weight, bias = (tensor.float().requires_grad_() for tensor in problem())
    with torch.autocast(device_of(backend), dtype=torch.bfloat16):
        out = conv1x1(x, weight, bias, backend=backend)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert weight.grad.dtype == torch.float32
