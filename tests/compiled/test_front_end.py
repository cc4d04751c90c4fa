"""Triton's compiler takes every kernel in every mode, also where sizes are 1."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from benchmarks.compiled import _compile_kernels, modules
from tests.compiled.front_end import refusals


@pytest.fixture(scope="module")
def front_end(cold_cache: Path) -> Iterator[ProcessPoolExecutor]:
    """A process that compiles."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _compile_kernels) as pool:
        yield pool


@pytest.mark.parametrize("operation", [module.split(".")[-1] for module in modules()])
def test_no_launch_is_refused(operation: str, front_end: ProcessPoolExecutor) -> None:
    tried, refused = front_end.submit(refusals, operation).result()
    assert tried >= 10
    assert refused == []
