"""The command line of the benchmarks: what it runs, what it refuses, how it ends."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fcnkern
from benchmarks import __main__ as command_line
from benchmarks.bounds import Ceilings
from benchmarks.cases import chosen
from benchmarks.contenders import Contender
from benchmarks.report import read

ROOT = Path(__file__).resolve().parents[1]


def test_pytest_finds_the_benchmarks_where_they_are_asked_for() -> None:
    package = str(Path(fcnkern.__file__).parents[1])
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), package]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-2000:]
    for operation in ("upsample_argmax", "models"):
        assert f"benchmarks/bench_{operation}.py::test_{operation}[" in found.stdout


def contender(run: Callable[[], Any] = lambda: None, *, found: float = 1.0) -> Contender:
    """Gives ``found``, where 1 is right, after ``run``."""

    def result() -> tuple[Tensor, ...]:
        run()
        return (torch.full((2,), found),)

    return Contender(result, lambda: (torch.ones(2),))


def fails_at(call: int, error: Exception) -> Contender:
    """A contender that fails at a call: the first is checked, those after it are timed."""
    calls = itertools.count(1)

    def run() -> None:
        if next(calls) == call:
            raise error

    return contender(run)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command with options, and contenders in place of those of the argmax."""

    def run(contenders: dict[str, Contender], *words: str) -> int:
        monkeypatch.setattr(command_line, "build", lambda *_: contenders)
        monkeypatch.setattr(command_line, "everyone", lambda *_: list(contenders))
        monkeypatch.setattr(command_line, "ceilings", lambda _: Ceilings(1e9, 1e9, 1e9))
        monkeypatch.setattr(command_line, "kernel_share", lambda _: 0.5)
        words = ("--device=cpu", "--quick", "--only=argmax 21", "--seconds=0.01", *words)
        monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
        return command_line.main()

    monkeypatch.setattr(command_line, "extra_bytes", lambda *_: 0)
    return run


def failures(out: Path) -> dict[str, str | None]:
    """What a report says of each contender."""
    return {row.contender: row.failure for row in read(out)[1]}


@pytest.mark.parametrize("name", ["ours", "interpolate"])
def test_a_wrong_result_is_the_exit_status(
    bench: Callable[..., int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders = {"ours": contender(), "interpolate": contender()}
    assert bench(contenders) == 0
    assert bench(contenders | {name: contender(found=1.1)}) == 1
    assert f"WRONG: argmax 21×500×500 deconv(8, 31): {name}: result is off by" in capsys.readouterr().err


@pytest.mark.parametrize("call", [1, 2, 5])
def test_a_failure_in_check_or_timing_is_a_row_and_no_wrong_result(
    bench: Callable[..., int], tmp_path: Path, call: int
) -> None:
    contenders = {
        "ours": contender(),
        "interpolate": fails_at(call, AssertionError("its own")),
        "eager": contender(),
    }
    assert bench(contenders, f"--out={tmp_path / 'found'}") == 0
    expected = {"ours": None, "interpolate": "AssertionError: its own", "eager": None}
    assert failures(tmp_path / "found.json") == expected


def test_a_failure_in_measuring_memory_is_a_row(
    bench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise BrokenProcessPool("a child ended")

    monkeypatch.setattr(command_line, "extra_bytes", broken)
    contenders = {"ours": contender(), "interpolate": contender()}
    assert bench(contenders, f"--out={tmp_path / 'found'}") == 0
    expected = {"ours": "BrokenProcessPool: a child ended", "interpolate": None}
    assert failures(tmp_path / "found.json") == expected


def test_contenders_that_cannot_be_built_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict[str, Contender]:
        raise MemoryError("no room")

    monkeypatch.setattr(command_line, "build", broken)
    (case,) = chosen("cpu", only="argmax 21")
    rows = list(command_line.measure(case, "cpu", True, 0.01))
    assert rows[0].contender == "ours"
    assert {row.failure for row in rows} == {"MemoryError: no room"}
