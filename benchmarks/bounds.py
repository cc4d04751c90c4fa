"""What a case must move and compute at least, and how fast this machine can: the bound beside each time.

The counts are of the method, not of any code: each input read once and each result written once. For the loss four
exponentials per class and low-resolution cell in which a pixel counts (scores are bilinear in a cell, so that
exp(score) is a geometric sequence there), a logarithm per cell and a reciprocal for four pixels that count, and the
products of sequences, moments, reciprocals and logarithms.

A product is two flops whether or not a sum goes with it, as both take one turn of the units that multiply; so is a
comparison, which takes such a turn too. Sums alone, selections and moves are not counted: some processors have other
units for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_bodies import new_network, stock_network
from benchmarks.bench_density import scorer
from benchmarks.bench_patches import patch_classifier
from benchmarks.cases import (
    ADD,
    ARGMAX,
    BODIES,
    CONFUSION,
    CONV,
    DENSITY,
    ELISION,
    LOSS,
    MODELS,
    PATCHES,
    POOL,
    Case,
)
from benchmarks.contenders import draw_scores
from benchmarks.stock import StockFCN8s
from benchmarks.timing import Timer, timer
from fcnkern import FCN8s
from fcnkern.models import convolutionalize
from fcnkern.resample import Axis

COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
MATRIX = {"cpu": 1024, "cuda": 8192}
POLYNOMIAL = 16
"""Flops of an exponential: seven coefficients, rounding to a power of two and multiplying by it."""
CELL, ROW, PIXEL = 18, 3, 3
"""Products of the loss for a class, beside exponentials. A cell: eight that form the exponents, eight that gather
its moments and eight that spread them over its corners, less six that its last row saves. K pixels of a row: K + 2
that form their terms and the next row's first ones, 2 K + 1 of Horner's rule for the row's moments and the cell's.
"""
SHARED = 2.5
"""Products of a pixel that counts: ten for four pixels make four reciprocals of one and join their logarithms."""
DRAW = 40
"""Products of 32 bits in Philox4x32-10: two in each of ten rounds, of which both halves are kept."""
PRUNING = 6
"""Comparisons that tell whether a class can win in a cell: two of neighbouring scores in each direction for its
least and its greatest corner, one that finds the greatest of all least corners and one with that."""
RUNS = 7


class Work(NamedTuple):
    """Bytes, flops (two for each product or comparison) and exponentials, logarithms and reciprocals of one call."""

    bytes: float
    flops: float
    exponentials: float = 0.0


class Ceilings(NamedTuple):
    """What the device does per second, measured in the run: bytes of a copy, flops of a product.

    A GPU has units for exponentials, 16 per clock and multiprocessor; they are not measured, as no operation of
    PyTorch computes without moving, but follow from the clock that the driver names. On a CPU, None: there an
    exponential is `POLYNOMIAL` flops of the units that form products.
    """

    bytes: float
    flops: float
    exponentials: float | None = None

    @staticmethod
    def of(facts: Mapping[str, Any]) -> Ceilings:
        """Those of a report."""
        can = Ceilings(**facts["ceilings"])
        return can._replace(exponentials=None) if facts["device"] == "cpu" else can

    def bound(self, work: Work) -> float:
        """The least milliseconds of some work."""
        moved, formed = work.bytes / self.bytes, work.flops / self.flops
        if self.exponentials is None:
            return 1e3 * max(moved, formed + POLYNOMIAL * work.exponentials / self.flops)
        return 1e3 * max(moved, formed, work.exponentials / self.exponentials)

    def best(self, other: Ceilings) -> Ceilings:
        """The greater of each of two measurements: other programs on the machine can only lower one."""
        return Ceilings(max(self.bytes, other.bytes), max(self.flops, other.flops), self.exponentials)


def work(case: Case) -> Work:
    """What one call of a case takes."""
    return _WORK[case.operation](case)


def shared_work(case: Case, contender: str) -> Work | None:
    """`work` where a contender has to do that too; None of parts, of other networks and of other types of numbers."""
    other = contender.endswith(("bf16", "alone", "elide", "elided", "plain", "stride 32", "all pixels"))
    return None if other else work(case)


def _loss(case: Case) -> Work:
    scores, pixels = _counts(case)
    classes, element = case.shape.classes, case.dtype.itemsize
    kept = case.keep * pixels
    cells, rows = _cells_and_rows(case)
    products = classes * (CELL * cells + ROW * rows + PIXEL * kept) + SHARED * kept + DRAW * _drawn(case)
    moved = 2 * scores * element + pixels * case.label_type.itemsize
    return Work(moved, 2 * products, 4 * cells * classes + cells + kept / 4)


def _cells_and_rows(case: Case) -> tuple[float, float]:
    """Cells between neighbouring scores, and rows of them, in which a pixel counts: averages over what is drawn."""
    rows, columns = (_draws(axis, case.cell) for axis in case.resample.axes(*case.shape[1:]))
    used = 1 - (1 - case.keep) ** torch.outer(rows, columns)
    in_row = 1 - (1 - case.keep) ** columns
    return case.images * float(used.sum()), case.images * case.shape.out[0] * float(in_row.sum())


def _drawn(case: Case) -> int:
    """Sampling's cells."""
    height, width = (-(-side // case.cell) for side in case.shape.out)
    return case.images * height * width if case.keep < 1 else 0


def _points(axis: Axis) -> Tensor:
    """For each output of an axis the score before it."""
    outputs = torch.arange(axis.n_out, dtype=torch.float64)
    return (outputs * axis.step + axis.shift).floor().long()


def _draws(axis: Axis, cell: int) -> Tensor:
    """For each cell of an axis into which outputs fall, how many of sampling's cells those lie in."""
    points = _points(axis)
    pairs = torch.stack((points, torch.arange(axis.n_out) // cell)).unique(dim=1)
    return pairs[0].unique(return_counts=True)[1].double()


def _argmax(case: Case) -> Work:
    scores, pixels = _counts(case)
    return Work(scores * case.dtype.itemsize + pixels, 2 * _comparisons(case))


def _confusion(case: Case) -> Work:
    scores, pixels = _counts(case)
    labels = pixels * case.label_type.itemsize
    if "bincount" in case.rivals:
        return Work(8 * pixels + labels, 0.0)
    return Work(scores * case.dtype.itemsize + labels, 2 * _comparisons(case))


def _comparisons(case: Case) -> float:
    """Of a label map: one for each pixel and class that can win in its cell, and those that find these classes.

    A bilinear score lies between the corners of its cell, so a class whose greatest corner is below another's least
    is out. How many are left depends on the scores: these are drawn as the cases' are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        least = most = draw_scores(replace(case, images=1))[0].float()
    sizes = []
    for dim, axis in enumerate(case.resample.axes(*case.shape[1:]), start=1):
        points, size = _points(axis).unique(return_counts=True)
        sides = [(points + side).clamp(0, axis.n_in - 1) for side in (0, 1)]
        least = torch.minimum(*(least.index_select(dim, side) for side in sides))
        most = torch.maximum(*(most.index_select(dim, side) for side in sides))
        sizes.append(size)
    candidates = (most >= least.amax(0)).sum(0) * torch.outer(*sizes)
    return case.images * float(candidates.sum() + PRUNING * least.numel())


def _add(case: Case) -> Work:
    classes, (h, w), (height, width) = case.shape
    source, out, features = h * w * classes, height * width * classes, height * width * case.features
    passes = 3 if case.gradients else 1
    moved = (source + out + features) * case.dtype.itemsize * (2 if case.gradients else 1)
    taps = 4  # of a 4x4 kernel at stride 2, per output
    return Work(case.images * moved, case.images * passes * 2 * out * (case.features + taps * classes))


def _conv(case: Case) -> Work:
    outputs, (h, w), _ = case.shape
    pixels = case.images * h * w
    moved = pixels * (case.features + outputs) + outputs * case.features
    passes, times = (3, 2) if case.gradients else (1, 1)
    return Work(times * moved * case.dtype.itemsize, passes * 2 * pixels * outputs * case.features)


def _pool(case: Case) -> Work:
    """With gradients those of input and output too, and a byte for each winner, written and read."""
    channels, (h, w), (height, width) = case.shape
    inputs, outputs = case.images * channels * h * w, case.images * channels * height * width
    moved = (inputs + outputs) * case.dtype.itemsize
    return Work(2 * (moved + outputs) if case.gradients else moved, 0.0)


def _models(case: Case) -> Work:
    """Products of trunk and classifiers as PyTorch counts them; the parameters read once, in a step written once."""
    with torch.device("meta"):
        network = StockFCN8s(FCN8s(case.shape.classes, width=case.width))
        images = torch.empty(case.images, 3, *case.shape.size)
        with FlopCounterMode(display=False) as counter:
            logits = network(images)
            if case.gradients:
                logits.sum().backward()
    bytes_of_parameters = sum(p.numel() * p.element_size() for p in network.parameters())
    return Work((2 if case.gradients else 1) * bytes_of_parameters, _products(counter))


def _products(counter: FlopCounterMode) -> float:
    """Of trunk and classifiers: a bilinear upsampling needs none, however stock modules do it."""
    flops = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    return flops["Global"] - sum(count for name, count in flops.items() if ".upscore" in name)


def _bodies(case: Case) -> Work:
    """The same of an inference on the case's body."""
    with torch.device("meta"), torch.no_grad():
        network = stock_network(new_network(case))
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(case.images, 3, *case.shape.size))
    return Work(sum(p.numel() * p.element_size() for p in network.parameters()), _products(counter))


def _density(case: Case) -> Work:
    """The same of the coarse network, which every way to denser scores runs at least once."""
    with torch.device("meta"):
        network = scorer(case)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(case.images, 3, *case.shape.size))
    return Work(sum(p.numel() * p.element_size() for p in network.parameters()), counter.get_total_flops())


def _elision(case: Case) -> Work:
    """That of the plain network, less the products that elision leaves out of the trunk."""
    plain = _models(case)
    products = []
    with torch.device("meta"), torch.no_grad():
        network = FCN8s(case.shape.classes, width=case.width)
        images = torch.empty(case.images, 3, *case.shape.size)
        for network.elide in (False, True):
            with FlopCounterMode(display=False) as counter:
                network.scores(images)
            products.append(counter.get_total_flops())
    passes = 3 if case.gradients else 1
    return plain._replace(flops=plain.flops - passes * (products[0] - products[1]))


def _patches(case: Case) -> Work:
    """The same of the pass over the whole image."""
    with torch.device("meta"):
        classifier, side, stride = patch_classifier(case)
        network = convolutionalize(classifier, (3, side, side))
        height, width = (side + stride * (n - 1) for n in case.shape.size)
        with FlopCounterMode(display=False) as counter:
            scores = network(torch.empty(1, 3, height, width))
            if case.gradients:
                scores.sum().backward()
    return Work(sum(p.numel() * p.element_size() for p in network.parameters()), counter.get_total_flops())


def _counts(case: Case) -> tuple[float, float]:
    """Scores and pixels of a case."""
    classes, (h, w), (height, width) = case.shape
    return case.images * classes * h * w, case.images * height * width


_WORK: dict[str, Callable[[Case], Work]] = {
    LOSS: _loss,
    ARGMAX: _argmax,
    CONFUSION: _confusion,
    ADD: _add,
    CONV: _conv,
    POOL: _pool,
    MODELS: _models,
    BODIES: _bodies,
    DENSITY: _density,
    ELISION: _elision,
    PATCHES: _patches,
}


def ceilings(device: str) -> Ceilings:
    """Measures what a device can do; takes about a second."""
    take = timer(device)
    source = torch.ones(COPIED_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    copy = 2 * COPIED_BYTES[device] / _best(take, lambda: target.copy_(source))
    side = MATRIX[device]
    left, right = (torch.rand(side, side, device=device) for _ in range(2))
    product = 2 * side**3 / _best(take, lambda: left @ right)
    return Ceilings(copy, product, None if device == "cpu" else _exponentials(device))


def _exponentials(device: str) -> float:
    properties = torch.cuda.get_device_properties(device)
    return 16.0 * properties.multi_processor_count * 1e3 * properties.clock_rate


def _best(take: Timer, call: Callable[[], object]) -> float:
    return min((take(call) for _ in range(RUNS)), default=math.inf)
