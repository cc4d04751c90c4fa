"""FCN-8s as a whole, inference and training step, beside the same network of PyTorch's own modules.

Dropout is off (p = 0), so that both networks compute the same. A training step is forward, backward and SGD with
momentum at a learning rate of 0, which does all of the work and leaves the weights as they are. "trunk alone" is our
body, conv1_1 to fc7, in a step with the loss that is the sum of its maps' means; "head alone" what follows it, from
given maps to labels, or in a step to the loss and back to the maps.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import fcnkern
from benchmarks.cases import MODELS, Case
from benchmarks.contenders import Contender, Making, Result, as_it_is, compiled, draw_labels
from benchmarks.measure import measure, parameters
from benchmarks.stock import StockFCN8s

BOUND = 1e-3  # relative; two networks in fp32, sixteen layers deep


def contenders(case: Case) -> dict[str, Contender]:
    images, labels = torch.randn(case.images, 3, *case.shape.size), draw_labels(case)
    ours = new_network(case)
    stock = StockFCN8s(ours)
    networks: dict[str, tuple[nn.Module, Tensor]] = {"ours": (ours, images), "stock modules": (stock, images)}
    if "ours, channels_last" in case.rivals:
        dense = images.to(memory_format=torch.channels_last)
        for name, (network, _) in list(networks.items()):
            networks[f"{name}, channels_last"] = (_in_channels_last(network), dense)
    call = training_step if case.gradients else inference
    runs = {name: call(network.train(case.gradients), x, labels) for name, (network, x) in networks.items()}
    runs["compiled stock modules"] = call(stock, images, labels, compiled)
    truth = functools.cache(runs["stock modules"])
    found = {name: Contender(run, truth, BOUND) for name, run in runs.items()}
    heads = _heads(ours, stock, images)
    runs = {
        name: _head_step(head, maps, images, labels) if case.gradients else inference(head, images, labels)
        for name, (head, maps) in heads.items()
    }
    truth = functools.cache(runs["stock head alone"])
    found |= {name: Contender(run, truth, BOUND) for name, run in runs.items()}
    trunk = _trunk_step if case.gradients else _trunk
    own, stocks = trunk(ours, lambda: _maps(ours, images)), trunk(stock, lambda: stock.trunk(images))
    trunks = {"trunk alone": own, "stock trunk alone": stocks}
    return found | {name: Contender(run, stocks, BOUND) for name, run in trunks.items()}


def new_network(case: Case) -> fcnkern.FCN8s:
    """FCN-8s without dropout, with classifiers that tell classes apart: as constructed they are zero."""
    network = fcnkern.FCN8s(case.shape.classes, width=case.width)
    for name in ("score_fr", "score_pool4", "score_pool3"):
        weight = network.get_parameter(f"{name}.weight")
        nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    network.drop6.p = network.drop7.p = 0.0
    return network


def _in_channels_last(network: nn.Module) -> nn.Module:
    """A copy in that layout."""
    copied = copy.deepcopy(network)
    copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied


def inference(
    network: nn.Module, images: Tensor, labels: Tensor, made: Making = as_it_is
) -> Callable[[], Result]:
    predict = made(network.predict)  # type: ignore[arg-type]
    return lambda: (predict(images).long(),)


def training_step(
    network: nn.Module, images: Tensor, labels: Tensor, made: Making = as_it_is
) -> Callable[[], Result]:
    learning = [each for each in network.parameters() if each.requires_grad]
    watched, loss = network.get_parameter("score_fr.weight"), made(network.loss)  # type: ignore[arg-type]
    return _step(learning, watched, lambda: loss(images, labels))


def _step(
    learning: list[nn.Parameter], watched: nn.Parameter, loss: Callable[[], Tensor]
) -> Callable[[], Result]:
    """A training step; gives the loss and a gradient."""
    optimizer = torch.optim.SGD(learning, lr=0.0, momentum=0.9)

    def run() -> Result:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        assert watched.grad is not None
        return value.detach(), watched.grad

    return run


def _heads(
    ours: fcnkern.FCN8s, stock: StockFCN8s, images: Tensor
) -> dict[str, tuple[nn.Module, Sequence[Tensor]]]:
    """The networks with the maps of these images at hand, in place of their trunks; and those maps."""
    own, other = copy.copy(ours), copy.copy(stock)
    with torch.no_grad():
        maps = [each.requires_grad_() for each in stock.trunk(images)]
    named = dict(zip(("fc7", "pool4", "pool3"), maps, strict=True))
    own._feature_maps = lambda x: named  # type: ignore[method-assign]
    other.trunk = lambda x: maps  # type: ignore[method-assign]
    return {"head alone": (own, maps), "stock head alone": (other, maps)}


def _head_step(
    head: nn.Module, maps: Sequence[Tensor], images: Tensor, labels: Tensor
) -> Callable[[], Result]:
    """Loss, and gradients of the classifiers and of the maps."""
    classifiers = [each for name, each in head.named_parameters() if name.startswith("score")]

    def run() -> Result:
        loss = head.loss(images, labels)  # type: ignore[operator]
        return loss.detach(), torch.autograd.grad(loss, [*classifiers, *maps])[0]

    return run


def _maps(network: fcnkern.FCN8s, images: Tensor) -> Sequence[Tensor]:
    """fc7, pool4, pool3."""
    pool3, pool4, pool5 = network.pools(images)
    return network.classify(pool5), pool4, pool3


def _trunk(network: nn.Module, maps: Callable[[], Sequence[Tensor]]) -> Callable[[], Result]:
    @torch.no_grad()
    def run() -> Result:
        return tuple(maps())

    return run


def _trunk_step(network: nn.Module, maps: Callable[[], Sequence[Tensor]]) -> Callable[[], Result]:
    learning = [each for name, each in network.named_parameters() if name.startswith(("conv", "fc"))]

    def loss() -> Tensor:
        return torch.stack([each.mean() for each in maps()]).sum()

    return _step(learning, network.get_parameter("conv5_3.weight"), loss)


@pytest.mark.parametrize(("case", "name"), parameters(MODELS))
def test_models(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
