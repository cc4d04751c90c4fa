"""Whole images instead of patches: a grid of scores by one fully convolutional pass, and by crops (section 3.1).

The classifier has no padding and classifies crops as large as its receptive field, so that both ways give the same
scores and, as the loss sums over them, the same gradients of all weights: those of a batch of all receptive fields.
Crops begin a stride of 32 pixels apart and are cut before the time is taken. "ours" is `models.convolutionalize`.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import takewhile

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.cases import PATCHES, Case
from benchmarks.contenders import Contender, Result
from benchmarks.measure import measure, parameters
from fcnkern import models
from fcnkern.models.tracing import trace

BODIES = {"AlexNet": models.AlexNet, "VGG16": models.VGG16}
BOUND = 1e-3  # relative; one ReLU of one crop that falls otherwise in fp32 changes a gradient by some 1e-4
BATCH = 16  # crops at a time


def contenders(case: Case) -> dict[str, Contender]:
    classifier, side, stride = patch_classifier(case)
    whole = models.convolutionalize(classifier, (3, side, side))
    rows, columns = case.shape.size
    image = torch.randn(3, side + stride * (rows - 1), side + stride * (columns - 1))
    windows = image.unfold(1, side, stride).unfold(2, side, stride)
    crops = windows.permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side)
    call = _with_gradients if case.gradients else _forward

    def calling(network: nn.Module, batches: Sequence[Tensor]) -> Callable[[], Result]:
        return call(network, batches, (rows, columns))

    @functools.cache
    def truth() -> Result:
        return calling(copy.deepcopy(classifier).double(), crops.double().split(BATCH))()

    return {
        "ours": Contender(calling(whole, [image[None]]), truth, BOUND),
        "crops, batched": Contender(calling(classifier, crops.split(BATCH)), truth, BOUND),
        "crops, one by one": Contender(calling(classifier, crops.split(1)), truth, BOUND),
    }


def patch_classifier(case: Case) -> tuple[nn.Sequential, int, int]:
    """A classifier of patches without padding, the side of its patches and the stride of their grid in pixels."""
    body = BODIES[case.body](width=case.width)
    for layer in body.children():
        if isinstance(layer, nn.Conv2d):
            layer.padding = (0, 0)
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = False
    maps = OrderedDict(takewhile(lambda child: child[0] != "fc6", body.named_children()))
    path = trace(nn.Sequential(maps | {"fc6": body.fc6}), lambda net, x: {"fc6": net(x)})["fc6"].rows
    assert path.field is not None
    hidden, inputs = body.fc6.out_channels, body.fc6.weight[0].numel()
    layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    classifier = nn.Sequential(*maps.values(), nn.Flatten(), *layers, nn.Linear(hidden, case.shape.classes))
    return classifier.eval(), path.field, path.stride


def _forward(network: nn.Module, batches: Sequence[Tensor], grid: tuple[int, int]) -> Callable[[], Result]:
    @torch.no_grad()
    def run() -> Result:
        return (_on_grid([network(batch) for batch in batches], grid),)

    return run


def _with_gradients(
    network: nn.Module, batches: Sequence[Tensor], grid: tuple[int, int]
) -> Callable[[], Result]:
    """The scores, and the gradients of their sum for all weights."""

    def run() -> Result:
        network.zero_grad()
        scores = []
        for batch in batches:
            found = network(batch)
            found.sum().backward()
            scores.append(found.detach())
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        return _on_grid(scores, grid), *gradients

    return run


def _on_grid(scores: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """The 1,K,h,w scores of an image, or N,K of crops, as h,w,K."""
    found = torch.cat(list(scores))
    return found[0].permute(1, 2, 0) if found.dim() == 4 else found.reshape(*grid, -1)


@pytest.mark.parametrize(("case", "name"), parameters(PATCHES))
def test_patches(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
