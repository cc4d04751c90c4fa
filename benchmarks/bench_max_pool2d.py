"""Max pooling with the ReLU before it, at the shapes of the bodies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.cases import POOL, Case
from benchmarks.contenders import Contender, Result, compiled, in_channels_last, with_gradients
from benchmarks.measure import measure, parameters
from fcnkern import max_pool2d


def contenders(case: Case) -> dict[str, Contender]:
    x = torch.randn(case.images, case.shape.classes, *case.shape.size, dtype=case.dtype)

    def ours(x: Tensor, backend: str | None = None) -> Tensor:
        return max_pool2d(x, case.window, 2, ceil_mode=True, relu=True, backend=backend)

    def eager(x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(x), case.window, 2, ceil_mode=True)

    def calling(function: Callable[..., Tensor], x: Tensor) -> Callable[[], Result]:
        return with_gradients(function, x) if case.gradients else lambda: (function(x),)

    def truth(x: Tensor) -> Callable[[], Result]:
        return calling(lambda x: ours(x, "reference"), x.double())

    dense, rounded = in_channels_last(x), x.bfloat16()
    return {
        "ours": Contender(calling(ours, x), truth(x)),
        "ours, channels_last": Contender(calling(ours, dense), truth(x)),
        "ours, bf16": Contender(calling(ours, rounded), truth(rounded)),
        "eager": Contender(calling(eager, x), truth(x)),
        "compiled eager": Contender(calling(compiled(eager), x), truth(x)),
        "eager, channels_last": Contender(calling(eager, dense), truth(x)),
        "eager, bf16": Contender(calling(eager, rounded), truth(rounded)),
    }


@pytest.mark.parametrize(("case", "name"), parameters(POOL))
def test_max_pool2d(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
