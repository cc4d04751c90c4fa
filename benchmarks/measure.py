"""The part that the bench_*.py files share under pytest-benchmark."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import CASES, Case
from benchmarks.contenders import build


def parameters(operation: str) -> list[tuple[Case, str]]:
    """Every case of an operation with each of its contenders."""
    return [(case, name) for case in CASES if case.operation == operation for name in case.contenders()]


def measure(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    """Checks the contender's result, then takes its time; the contenders of a case are one group."""
    benchmark.group = case.name
    contender = build(case, [name])[name]
    benchmark.extra_info["error"] = contender.error()
    benchmark(contender.run)
