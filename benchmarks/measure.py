"""The part that the bench_*.py files share under pytest-benchmark."""

from __future__ import annotations

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import Case, chosen
from benchmarks.contenders import build, everyone

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def parameters(operation: str) -> list[tuple[Case, str]]:
    """Every case of an operation with each of its contenders."""
    cases = [case for case in chosen(DEVICE) if case.operation == operation]
    return [(case, name) for case in cases for name in everyone(case, DEVICE)]


def measure(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    """Checks the contender's result, then takes its time; the contenders of a case are one group."""
    benchmark.group = case.name
    contender = build(case, [name], DEVICE)[name]
    benchmark.extra_info["error"] = contender.error()

    def run() -> None:
        contender.run()
        if DEVICE != "cpu":
            torch.cuda.synchronize()

    benchmark(run)
