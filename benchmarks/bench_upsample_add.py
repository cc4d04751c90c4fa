"""The skip step of FCN-16s: score pool4's features, upsample by two, crop, add."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import rivals
from benchmarks.cases import ADD, Case
from benchmarks.contenders import Contender, Result, compiled, in_channels_last, with_gradients
from benchmarks.measure import measure, parameters
from fcnkern import upsample_add

OFFSET = 9


def contenders(case: Case) -> dict[str, Contender]:
    classes, size, out = case.shape
    inputs = (
        torch.randn(case.images, classes, *size),
        0.1 * torch.randn(classes, classes, 4, 4),
        torch.randn(case.images, case.features, out[0] + 2 * OFFSET, out[1] + 2 * OFFSET).relu(),
        0.02 * torch.randn(classes, case.features, 1, 1),
        torch.randn(classes),
    )

    def step(backend: str | None = None) -> Callable[..., Tensor]:
        def run(x: Tensor, weight: Tensor, skip: Tensor, skip_weight: Tensor, bias: Tensor) -> Tensor:
            return upsample_add(
                x,
                weight,
                skip,
                stride=2,
                skip_offset=OFFSET,
                skip_weight=skip_weight,
                skip_bias=bias,
                backend=backend,
            )

        return run

    def eager(x: Tensor, weight: Tensor, skip: Tensor, skip_weight: Tensor, bias: Tensor) -> Tensor:
        return rivals.skip_step(OFFSET, x, weight, skip, skip_weight, bias)

    def calling(
        function: Callable[..., Tensor], tensors: tuple[Tensor, ...] = inputs
    ) -> Callable[[], Result]:
        return with_gradients(function, *tensors) if case.gradients else lambda: (function(*tensors),)

    def truth(tensors: tuple[Tensor, ...] = inputs) -> Callable[[], Result]:
        return calling(step("reference"), tuple(tensor.double() for tensor in tensors))

    dense = tuple(in_channels_last(tensor) if tensor.dim() == 4 else tensor for tensor in inputs)
    rounded = tuple(tensor.bfloat16() for tensor in inputs)
    return {
        "ours": Contender(calling(step()), truth()),
        "ours, channels_last": Contender(calling(step(), dense), truth()),
        "ours, bf16": Contender(calling(step(), rounded), truth(rounded)),
        "eager": Contender(calling(eager), truth()),
        "compiled eager": Contender(calling(compiled(eager)), truth()),
        "eager, channels_last": Contender(calling(eager, dense), truth()),
        "eager, bf16": Contender(calling(eager, rounded), truth(rounded)),
    }


@pytest.mark.parametrize(("case", "name"), parameters(ADD))
def test_upsample_add(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
