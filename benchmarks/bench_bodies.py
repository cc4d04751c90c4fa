"""FCN-8s on every body, from an image to its labels, beside the same network of PyTorch's own modules.

Both have the same weights, and stock modules take the argmax of full-resolution scores. "ours, elide" leaves out the
work that VGG16's padding causes.
"""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from benchmarks.bench_models import inference
from benchmarks.cases import BODIES, Case
from benchmarks.contenders import Contender, compiled, draw_labels
from benchmarks.measure import measure, parameters
from benchmarks.stock import StockFCN8s
from benchmarks.stock_head import StockFCN
from fcnkern.models import FCN, FCN8s, create


def contenders(case: Case) -> dict[str, Contender]:
    images, labels = torch.randn(case.images, 3, *case.shape.size), draw_labels(case)
    ours = new_network(case)
    networks: dict[str, nn.Module] = {"ours": ours, "stock modules": stock_network(ours)}
    if "ours, elide" in case.rivals:
        elided = copy.copy(ours)  # shares the layers
        elided.elide = True
        networks["ours, elide"] = elided
    runs = {name: inference(network.eval(), images, labels) for name, network in networks.items()}
    runs["compiled stock modules"] = inference(networks["stock modules"], images, labels, compiled)
    truth = functools.cache(runs["stock modules"])
    return {name: Contender(run, truth) for name, run in runs.items()}


def new_network(case: Case) -> FCN:
    """FCN-8s with classifiers that tell classes apart: as constructed they are zero."""
    network = create(f"fcn8s_{case.body.lower()}", case.shape.classes, width=case.width)
    for name, weight in network.named_parameters():
        if name.startswith("score") and name.endswith("weight"):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return network


def stock_network(ours: FCN) -> nn.Module:
    """The same network of PyTorch's own modules."""
    return StockFCN8s(ours) if isinstance(ours, FCN8s) else StockFCN(ours)


@pytest.mark.parametrize(("case", "name"), parameters(BODIES))
def test_bodies(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
