"""FCN-8s with `elide` beside the same network without it, inference and training step.

Both have the same weights. The trunk alone, conv1_1 to pool5, shows the memory of the activations: of the networks
at full width it hides below that of fc6's weights, which oneDNN copies. A training step is that of `bench_models`; of
the trunk alone, forward and backward.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import fcnkern
from benchmarks.bench_models import inference, new_network, training_step
from benchmarks.cases import ELISION, Case
from benchmarks.contenders import Contender, Result, draw_labels
from benchmarks.measure import measure, parameters
from fcnkern.models.elision import elided_features

BOUND = 1e-5  # relative


def contenders(case: Case) -> dict[str, Contender]:
    images, labels = torch.randn(case.images, 3, *case.shape.size), draw_labels(case)
    plain = new_network(case).train(case.gradients)
    elided = copy.copy(plain)  # shares the layers
    elided.elide = True
    call = training_step if case.gradients else inference
    runs = {"ours": call(elided, images, labels), "plain": call(plain, images, labels)}
    for name, network in (("trunk alone, elided", elided), ("trunk alone, plain", plain)):
        runs[name] = _trunk(network, images, case.gradients)
    whole, trunk = (functools.cache(runs[name]) for name in ("plain", "trunk alone, plain"))
    truth = {name: trunk if name.startswith("trunk") else whole for name in runs}
    return {name: Contender(run, truth[name], BOUND) for name, run in runs.items()}


def _trunk(network: fcnkern.FCN8s, images: Tensor, gradients: bool) -> Callable[[], Result]:
    """pool3, pool4 and pool5, or the gradient of their sum for conv5_3's bias."""
    chain = network.chain()._replace(tails={})
    layers = [layer for _, layer in chain.layers]
    weights = [parameter for layer in layers for parameter in layer.parameters()]

    def run() -> Result:
        if network.elide:
            maps = tuple(elided_features(chain, images, (0, 0, 0, 0)).values())
        else:
            maps = network.pools(images)
        if not gradients:
            return maps
        return torch.autograd.grad(torch.stack([each.sum() for each in maps]).sum(), weights)[-1:]

    return run if gradients else torch.no_grad()(run)


@pytest.mark.parametrize(("case", "name"), parameters(ELISION))
def test_elision(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
