"""Max pooling in the bodies: PyTorch's results and gradients, one byte kept per output, and the ReLU before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fcnkern.models import VGG16, AlexNet, CaffeNet, GoogLeNet
from fcnkern.models.body import Body, HiddenBody
from fcnkern.models.layers import CeilMaxPool2d, in_turn
from fcnkern.nn import MaxPool2d

WINDOWS = [
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": (2, 3), "stride": (1, 2), "dilation": (2, 1)},
]
windows = pytest.mark.parametrize("window", WINDOWS, ids=["same", "ceil", "dilated"])


def pooled_and_gradient(pool: nn.MaxPool2d, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    pooled = pool(x)
    torch.manual_seed(1)
    slopes = torch.randint(-8, 9, pooled.shape).to(pooled)  # whose sums are exact in bf16
    return pooled.detach(), torch.autograd.grad(pooled, x, slopes)[0]


@windows
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_same_as_pytorchs(
    window: dict[str, object], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    """Also where several values of a window are the largest."""
    for images in (torch.randint(0, 3, (2, 5, 9, 8)), torch.randn(2, 5, 9, 8)):
        x = images.to(dtype).to(memory_format=layout)
        ours, plain = (pooled_and_gradient(kind(**window), x) for kind in (MaxPool2d, nn.MaxPool2d))
        for mine, theirs in zip(ours, plain, strict=True):
            assert torch.equal(mine, theirs)
            assert mine.stride() == theirs.stride()


@windows
def test_gradients_of_gradients_and_of_a_batch_of_calls(window: dict[str, object]) -> None:
    pool, x = MaxPool2d(**window), torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pool, x)
    assert torch.autograd.gradgradcheck(pool, x)
    plain = nn.MaxPool2d(**window)
    found, wanted = (
        torch.func.vmap(torch.func.grad(lambda one, kind=kind: kind(one).square().sum()))(x.detach())
        for kind in (pool, plain)
    )
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("pool", [MaxPool2d(3, 1, 1), CeilMaxPool2d(2, 2)])
def test_a_byte_per_output_is_kept(pool: nn.MaxPool2d) -> None:
    kept, x = [], torch.randn(1, 3, 6, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        pooled = pool(x)
    assert [(each.dtype, each.shape) for each in kept] == [(torch.uint8, pooled.shape)]


@pytest.mark.parametrize(("kind", "pools"), [(VGG16, 5), (CaffeNet, 3), (AlexNet, 3), (GoogLeNet, 1)])
def test_a_relu_is_computed_with_the_pool_behind_it(
    kind: type[Body], pools: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same results to the last bit, and not where a hook looks at it."""
    body, x = kind(1 / 16).eval(), torch.randn(1, 3, 40, 50)
    relus = [layer for layer in body.modules() if isinstance(layer, nn.ReLU)]
    called: list[nn.Module] = []
    forward = nn.ReLU.forward
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: called.append(self) or forward(self, x))

    def run() -> list[Tensor]:
        called.clear()
        found = body.features(x)[body.tap_names[1]]
        return [found.detach(), *torch.autograd.grad(found.sum(), next(body.parameters()))]

    joined = run()
    assert len(called) == len(relus) - pools - issubclass(kind, HiddenBody)  # fc7 is computed with its own
    for relu in relus:
        relu.register_forward_hook(lambda *_: None)
    assert all(map(torch.equal, joined, run()))
    assert len(called) == len(relus)


def test_a_sequence_that_holds_a_layer_twice() -> None:
    double = nn.Conv2d(2, 2, 1)
    sequence, x = nn.Sequential(double, nn.ReLU(), double), torch.randn(1, 2, 3, 4)
    *_, (name, found) = in_turn([("twice", sequence)], x)
    assert name == "twice"
    assert torch.equal(found, sequence(x))


def test_what_is_asked_for_is_given() -> None:
    x = torch.randn(1, 3, 6, 7, requires_grad=True)
    pooled, indices = MaxPool2d(2, return_indices=True)(x)
    assert indices.dtype == torch.int64
    assert torch.equal(pooled, x.flatten(2).gather(2, indices.flatten(2)).view_as(pooled))


def test_googlenet_keeps_no_indices() -> None:
    kept, model = [], GoogLeNet(1 / 16)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        model.features(torch.randn(1, 3, 64, 64))
    assert kept
    assert not any(each.dtype == torch.int64 for each in kept)
