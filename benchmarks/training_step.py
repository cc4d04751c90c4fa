"""One training step in parts: trunk, head, loss and update, of ours and of PyTorch's own modules."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.stock import StockFCN8s
from benchmarks.stock_head import StockFCN
from fcnkern.data import Batch, Dataset, collate, preset
from fcnkern.engine.device import moved, place_for_training
from fcnkern.functional import upsample_cross_entropy
from fcnkern.models import FCN, FCN8s, create

CPU = torch.device("cpu")
PARTS = ("trunk", "head", "loss", "update")
BOUND = 1e-9  # relative, in fp64: in fp32 rounding decides who wins a max pool, and first gradients differ by 1e-3


class Contender:
    """A network and how its step is done, cut where trunk, head and loss meet.

    The cuts change nothing: gradients are handed from part to part as autograd would.

    Args:
        trunk: images -> feature maps. head: images and maps -> low-resolution scores. loss: scores, labels -> loss;
            it upsamples.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        trunk: Callable[[Tensor], Sequence[Tensor]],
        head: Callable[[Tensor, Sequence[Tensor]], Tensor],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.name, self.network = name, network
        self._trunk, self._head, self._loss = trunk, head, loss
        parameters = [p for p in network.parameters() if p.requires_grad]
        self._optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)
        self.value = 0.0

    def step(self, batch: Batch, *, accumulate: bool = False) -> dict[str, float]:
        """Forward, backward and an update at a rate of 0; seconds of each part, both ways.

        accumulate: add to the gradients that there are.
        """
        images = moved(batch, self.network).images
        marks = [time.perf_counter()]
        if not accumulate:
            self._optimizer.zero_grad(set_to_none=True)
        maps = list(self._trunk(images))
        seen = [each.detach().requires_grad_() for each in maps]
        marks.append(time.perf_counter())
        scores = self._head(images, seen)
        leaf = scores.detach().requires_grad_()
        marks.append(time.perf_counter())
        loss = self._loss(leaf, batch.labels)
        loss.backward()
        marks.append(time.perf_counter())
        scores.backward(leaf.grad)
        marks.append(time.perf_counter())
        torch.autograd.backward(maps, [each.grad for each in seen])
        marks.append(time.perf_counter())
        self._optimizer.step()
        self.value = loss.item()
        marks.append(time.perf_counter())
        spent = [after - before for before, after in pairwise(marks)]
        return dict(zip(PARTS, (spent[0] + spent[4], spent[1] + spent[3], spent[2], spent[5]), strict=True))

    def gradient(self) -> Tensor:
        """Of the first parameter: it has passed through every layer."""
        first = next(p for p in self.network.parameters() if p.requires_grad)
        assert first.grad is not None
        return first.grad


def our_network(body: str, width: float, classes: int) -> FCN:
    """FCN-8s without dropout, with classifiers that tell classes apart: as constructed they are zero."""
    torch.manual_seed(0)
    model = create(f"fcn8s_{body}", classes, width=width, elide=body == "vgg16")
    model.set_dropout(0.0)
    for name, weight in model.named_parameters():
        if name.startswith("score") and name.endswith("weight"):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return model


def ours(model: FCN) -> Contender:
    """The network as it is trained: scores are never upsampled in memory."""
    resample = None

    def trunk(images: Tensor) -> list[Tensor]:
        return list(model._feature_maps(images).values())

    def head(images: Tensor, maps: Sequence[Tensor]) -> Tensor:
        nonlocal resample
        known = dict(zip(names, maps, strict=True))
        object.__setattr__(model, "_feature_maps", lambda _: known)
        try:
            scores, resample = model.scores(images)
        finally:
            object.__delattr__(model, "_feature_maps")
        return scores

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        assert resample is not None
        return upsample_cross_entropy(scores, labels, resample)

    with torch.no_grad():
        names = list(model._feature_maps(next(model.parameters()).new_zeros(1, 3, 64, 64)))
    place_for_training(model, CPU)
    return Contender("ours", model, trunk, head, loss)


def stock(model: FCN) -> Contender:
    """The same network of PyTorch's own modules, with `F.cross_entropy` of full-resolution scores."""
    network = StockFCN8s(model) if isinstance(model, FCN8s) else StockFCN(model)
    place_for_training(network.to(next(model.parameters()).dtype), CPU)

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        full = network.upsample(scores, labels.shape[1:])
        return F.cross_entropy(full, labels.long(), ignore_index=255)

    return Contender("stock", network, network.trunk, lambda _, maps: network.head(maps), loss)


def checked_pair(body: str, width: float, dataset: Dataset) -> tuple[Contender, Contender, str]:
    """Both contenders, after a step in fp64 in which loss and gradients agree; and the name of their preprocessing.

    Raises:
        AssertionError: they do not.
    """
    model = our_network(body, width, len(dataset.classes))
    doubled = copy.deepcopy(model).double()
    pair = ours(doubled), stock(doubled)
    batch = collate([dataset[0]], preset(model.preprocess))
    for contender in pair:
        contender.step(batch._replace(images=batch.images.double()))
    mine, theirs = (contender.value for contender in pair)
    assert abs(mine - theirs) <= BOUND * abs(theirs), f"{body}: loss {mine}, stock {theirs}"
    error = (pair[0].gradient() - pair[1].gradient()).norm() / pair[1].gradient().norm()
    assert error <= BOUND, f"{body}: gradients differ by {error:.1e}"
    return ours(model), stock(model), model.preprocess
