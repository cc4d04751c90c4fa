"""The label map of upsampled scores."""

from __future__ import annotations

import functools

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import rivals
from benchmarks.cases import ARGMAX, Case
from benchmarks.contenders import (
    BF16_COUNT_BOUND,
    Contender,
    Result,
    compiled,
    draw_scores,
    in_channels_last,
)
from benchmarks.measure import measure, parameters
from fcnkern import Resample, upsample_argmax


def contenders(case: Case) -> dict[str, Contender]:
    scores, size = draw_scores(case), case.shape.out
    dense, rounded = in_channels_last(scores), scores.bfloat16()

    def resized(resample: Resample) -> Resample:
        return Resample(resample.kind, resample.factor, resample.offset, size)

    @functools.cache
    def truth(resample: Resample, x: Tensor = scores) -> Result:
        return (upsample_argmax(x.double(), resized(resample), backend="reference").long(),)

    def interpolated(x: Tensor) -> Tensor:
        return rivals.interpolate(x, size).argmax(1)

    compiled_interpolated = compiled(interpolated)
    ours, half_pixel = resized(case.resample), Resample.half_pixel()
    found = {
        "ours": Contender(lambda: (upsample_argmax(scores, ours),), lambda: truth(case.resample)),
        "interpolate": Contender(lambda: (interpolated(scores),), lambda: truth(half_pixel)),
        "compiled interpolate": Contender(
            lambda: (compiled_interpolated(scores),), lambda: truth(half_pixel)
        ),
        "interpolate, channels_last": Contender(lambda: (interpolated(dense),), lambda: truth(half_pixel)),
        "interpolate, bf16": Contender(
            lambda: (interpolated(rounded),), lambda: truth(half_pixel, rounded), part=BF16_COUNT_BOUND
        ),
        "ours, channels_last": Contender(
            lambda: (upsample_argmax(dense, ours),), lambda: truth(case.resample)
        ),
        "ours, bf16": Contender(
            lambda: (upsample_argmax(rounded, ours),), lambda: truth(case.resample, rounded)
        ),
    }
    if case.resample.kind == "deconv":
        factor, offset = case.resample.factor[0], case.resample.offset[0]
        weight = rivals.bilinear_weight(case.shape.classes, factor)

        def deconvolved() -> Result:
            return (rivals.deconvolve(scores, weight, factor, offset, size).argmax(1),)

        found["dense deconvolution"] = Contender(deconvolved, lambda: truth(case.resample))
    return found


@pytest.mark.parametrize(("case", "name"), parameters(ARGMAX))
def test_upsample_argmax(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
