"""The loss with its gradient: forward and backward pass."""

from __future__ import annotations

import functools

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import peers, rivals
from benchmarks.cases import LOSS, Case
from benchmarks.contenders import (
    BF16_SUM_BOUND,
    Contender,
    Result,
    compiled,
    draw_labels,
    draw_scores,
    in_channels_last,
    with_gradients,
)
from benchmarks.measure import measure, parameters
from fcnkern import Resample, Sampling, upsample_cross_entropy


def contenders(case: Case) -> dict[str, Contender]:
    scores, target, size = draw_scores(case), draw_labels(case), case.shape.out
    sampling = None if case.keep == 1 else Sampling(case.keep, case.cell, seed=1)

    def ours(x: Tensor) -> Tensor:
        return upsample_cross_entropy(x, target, case.resample, sampling=sampling)

    def ours_everywhere(x: Tensor) -> Tensor:
        return upsample_cross_entropy(x, target, case.resample)

    @functools.cache
    def truth(
        resample: Resample, labels: Tensor, sampled: Sampling | None = None, x: Tensor = scores
    ) -> Result:
        def loss(x: Tensor) -> Tensor:
            return upsample_cross_entropy(x, labels, resample, sampling=sampled, backend="reference")

        return with_gradients(loss, x.double())()

    masked = target if sampling is None else _drop_cells(target, case)

    def interpolated(x: Tensor) -> Tensor:
        return rivals.cross_entropy(rivals.interpolate(x, size), masked.long())

    summed = BF16_SUM_BOUND if case.dtype == torch.bfloat16 else None
    half_pixel = Resample.half_pixel()
    dense, rounded = in_channels_last(scores), scores.bfloat16()
    found = {
        "ours": Contender(with_gradients(ours, scores), lambda: truth(case.resample, target, sampling)),
        "all pixels": Contender(
            with_gradients(ours_everywhere, scores), lambda: truth(case.resample, target)
        ),
        "interpolate": Contender(
            with_gradients(interpolated, scores), lambda: truth(half_pixel, masked), summed
        ),
        "compiled interpolate": Contender(
            with_gradients(compiled(interpolated), scores),
            lambda: truth(half_pixel, masked),
        ),
    }
    found |= {
        "ours, channels_last": Contender(
            with_gradients(ours, dense), lambda: truth(case.resample, target, sampling)
        ),
        "ours, bf16": Contender(
            with_gradients(ours, rounded), lambda: truth(case.resample, target, sampling, rounded)
        ),
        "interpolate, channels_last": Contender(
            with_gradients(interpolated, dense), lambda: truth(half_pixel, masked)
        ),
        "interpolate, bf16": Contender(
            with_gradients(interpolated, rounded),
            lambda: truth(half_pixel, masked, x=rounded),
            BF16_SUM_BOUND,
        ),
    }
    for name, cross_entropy in peers.cross_entropies(scores.device.type).items():

        def by_peer(x: Tensor, cross_entropy: peers.CrossEntropy = cross_entropy) -> Tensor:
            return cross_entropy(rivals.interpolate(x, size), masked.long())

        found[name] = Contender(with_gradients(by_peer, scores), lambda: truth(half_pixel, masked), summed)
    if case.resample.kind == "deconv":
        factor, offset = case.resample.factor[0], case.resample.offset[0]
        weight = rivals.bilinear_weight(case.shape.classes, factor)

        def deconvolved(x: Tensor) -> Tensor:
            return rivals.cross_entropy(rivals.deconvolve(x, weight, factor, offset, size), target.long())

        found["dense deconvolution"] = Contender(
            with_gradients(deconvolved, scores), lambda: truth(case.resample, target)
        )
    return found


def _drop_cells(target: Tensor, case: Case) -> Tensor:
    """The target with 255 in a random part of the cells: how plain PyTorch samples a loss."""
    height, width = case.shape.out
    cells = torch.rand(case.images, -(-height // case.cell), -(-width // case.cell)) >= case.keep
    dropped = cells.repeat_interleave(case.cell, 1).repeat_interleave(case.cell, 2)
    return target.masked_fill(dropped[:, :height, :width], 255)


@pytest.mark.parametrize(("case", "name"), parameters(LOSS))
def test_upsample_cross_entropy(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
