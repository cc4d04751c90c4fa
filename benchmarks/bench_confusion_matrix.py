"""Counts of (truth, prediction), from label maps and from scores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import rivals
from benchmarks.cases import CONFUSION, Case
from benchmarks.contenders import Contender, Result, compiled, draw_labels, draw_scores
from benchmarks.measure import measure, parameters
from fcnkern import Resample, confusion_matrix


def contenders(case: Case) -> dict[str, Contender]:
    scores, target = draw_scores(case), draw_labels(case)
    classes, _, out = case.shape
    if "bincount" in case.rivals:
        prediction = rivals.interpolate(scores, out).argmax(1)

        def counted(backend: str | None = None) -> Result:
            return (confusion_matrix(prediction, target, classes, backend=backend),)

        def bincount(count: Callable[..., Tensor]) -> Contender:
            return Contender(lambda: (count(prediction, target, classes),), lambda: counted("reference"))

        return {
            "ours": Contender(counted, lambda: counted("reference")),
            "bincount": bincount(rivals.masked_bincount),
            "compiled bincount": bincount(compiled(rivals.masked_bincount)),
        }

    def truth(resample: Resample) -> Result:
        return (confusion_matrix(scores.double(), target, resample=resample, backend="reference"),)

    def interpolated() -> Result:
        return (rivals.masked_bincount(rivals.interpolate(scores, out).argmax(1), target, classes),)

    return {
        "ours": Contender(
            lambda: (confusion_matrix(scores, target, resample=case.resample),), lambda: truth(case.resample)
        ),
        "interpolate, argmax, bincount": Contender(interpolated, lambda: truth(Resample.half_pixel())),
    }


@pytest.mark.parametrize(("case", "name"), parameters(CONFUSION))
def test_confusion_matrix(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
