"""The 1×1 classifier with ReLU and dropout, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import rivals
from benchmarks.cases import CONV, Case
from benchmarks.contenders import (
    Contender,
    Making,
    Result,
    as_it_is,
    compiled,
    in_channels_last,
    with_gradients,
)
from benchmarks.measure import measure, parameters
from fcnkern import conv1x1

DROPOUT = 0.5


def contenders(case: Case) -> dict[str, Contender]:
    inputs = (
        torch.randn(case.images, case.features, *case.shape.size),
        torch.randn(case.shape.classes, case.features, 1, 1) / case.features**0.5,
        torch.randn(case.shape.classes),
    )

    def ours(x: Tensor, weight: Tensor, bias: Tensor, backend: str | None = None) -> Tensor:
        return conv1x1(x, weight, bias, relu=True, dropout_p=DROPOUT, seed=1, backend=backend)

    def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ours(x, weight, bias, "reference")

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return rivals.classifier(x, weight, bias, DROPOUT)

    def calling(function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], Result]:
        return with_gradients(function, *tensors) if case.gradients else lambda: (function(*tensors),)

    def by_us(tensors: tuple[Tensor, ...]) -> Contender:
        return Contender(calling(ours, tensors), calling(reference, _exact(tensors)))

    def by_eager(tensors: tuple[Tensor, ...], made: Making = as_it_is) -> Contender:
        run_eager, draw = calling(made(eager), tensors), made(_drawn)

        def seeded() -> Result:
            torch.manual_seed(1)
            return run_eager()

        def truth() -> Result:
            like = eager(*tensors)
            torch.manual_seed(1)
            mask = draw(like).double()

            def masked(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                return rivals.classifier(x, weight, bias, 0.0) * mask

            return calling(masked, _exact(tensors))()

        return Contender(seeded, truth)

    dense = (in_channels_last(inputs[0]), in_channels_last(inputs[1]), inputs[2])
    rounded = (inputs[0].bfloat16(), inputs[1].bfloat16(), inputs[2].bfloat16())
    return {
        "ours": by_us(inputs),
        "ours, channels_last": by_us(dense),
        "ours, bf16": by_us(rounded),
        "eager": by_eager(inputs),
        "compiled eager": by_eager(inputs, compiled),
        "eager, channels_last": by_eager(dense),
        "eager, bf16": by_eager(rounded),
    }


def _drawn(like: Tensor) -> Tensor:
    """What dropout multiplies by."""
    return F.dropout(torch.ones_like(like), DROPOUT)


def _exact(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in tensors)


@pytest.mark.parametrize(("case", "name"), parameters(CONV))
def test_conv1x1(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
