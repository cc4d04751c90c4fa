"""The command line of the benchmarks: what it runs, what it refuses, how it ends."""

from __future__ import annotations

import itertools
import json
import os
import shlex
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
from benchmarks.cases import CASES, chosen
from benchmarks.contenders import Contender, is_foreign
from benchmarks.report import read
from benchmarks.timing import Times

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


@pytest.mark.parametrize("call", [1, 5])
def test_a_failure_of_our_own_is_the_exit_status(
    bench: Callable[..., int], call: int, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders = {"ours": fails_at(call, RuntimeError("no kernel")), "interpolate": contender()}
    assert bench(contenders) == 1
    assert "FAILED: argmax 21×500×500 deconv(8, 31): ours: RuntimeError: no kernel" in capsys.readouterr().err


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
    assert bench(contenders, f"--out={tmp_path / 'found'}") == 1
    expected = {"ours": "BrokenProcessPool: a child ended", "interpolate": None}
    assert failures(tmp_path / "found.json") == expected


def test_contenders_that_cannot_be_built_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict[str, Contender]:
        raise MemoryError("no room")

    monkeypatch.setattr(command_line, "build", broken)
    (case,) = chosen("cpu", quick=True, only="argmax 21")
    rows = list(command_line.measure(case, "cpu", True, 0.01))
    assert rows[0].contender == "ours"
    assert {row.failure for row in rows} == {"MemoryError: no room"}


FOREIGN = {"interpolate", "dense deconvolution", "bincount", "eager", "stock modules"}
STOCK_PARTS = {"stock trunk alone", "stock head alone"}


def test_what_runs_none_of_our_code_is_foreign() -> None:
    for name in {name for case in CASES for name in case.contenders()}:
        rival = name.removeprefix("compiled ").split(", ")[0]
        assert is_foreign(name) == (rival in FOREIGN | STOCK_PARTS), name


def test_what_got_slower_is_said(
    bench: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(ours: float, *words: str) -> None:
        taken = {"ours": ours, "trunk alone": 2 * ours, "interpolate": 2.0}
        times = {name: Times(each, each, each, each, 9) for name, each in taken.items()}
        monkeypatch.setattr(command_line, "interleaved", lambda *_: times)
        assert bench(dict.fromkeys(taken, contender()), *words) == 0

    old = tmp_path / "old.json"
    run(1.0, f"--out={tmp_path / 'old'}")
    run(1.0, f"--compare={old}")
    assert "SLOWER" not in capsys.readouterr().out
    run(1.5, f"--compare={old}")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("SLOWER", "ANOTHER"))]
    assert [line.split(": ")[2] for line in said] == ["ours", "trunk alone"]
    report = json.loads(old.read_text())
    report["circumstances"] |= {"isa": "another", "device": "cuda"}
    old.write_text(json.dumps(report))
    run(1.0, f"--compare={old}")
    said = capsys.readouterr().out
    assert "ANOTHER MACHINE: isa: another then, " in said
    assert "ANOTHER MACHINE: device: cuda then, cpu now" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read: No such file"), ("{}", "is no report"), ("[1]", "is no report")],
)
def test_an_unreadable_earlier_report_is_refused_before_the_run(
    bench: Callable[..., int], tmp_path: Path, text: str | None, said: str
) -> None:
    old = tmp_path / "old.json"
    if text is not None:
        old.write_text(text)
    never = contender(lambda: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match=f"--compare: .*old.json {said}"):
        bench({"ours": never}, f"--compare={old}")


def test_a_chart_without_matplotlib_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", f"--plot={tmp_path / 'a.png'}"])
    with pytest.raises(SystemExit, match="2"):
        command_line.options()
    assert "--plot: matplotlib is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_a_place_that_cannot_be_written_is_refused_before_the_run(
    bench: Callable[..., int], tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    never = contender(lambda: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match="2"):
        bench({"ours": never}, f"{option}={tmp_path / 'file' / 'found'}")
    assert f"argument {option}: cannot write to {tmp_path / 'file'}: " in capsys.readouterr().err


def test_a_chart_is_png_whatever_its_name(bench: Callable[..., int], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert (
        bench({"ours": contender(), "interpolate": contender()}, f"--plot={tmp_path / 'new' / 'v1.2'}") == 0
    )
    assert (tmp_path / "new" / "v1.2").read_bytes().startswith(b"\x89PNG")


def test_the_recorded_command_runs_the_same_again(
    bench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    bench({"ours": contender()}, f"--out={tmp_path / 'v1.2'}")
    command = read(tmp_path / "v1.2.json")[0]["command"]
    assert shlex.split(command) == ["OMP_NUM_THREADS=2", "python", "-m", "benchmarks", *sys.argv[1:]]
    assert (tmp_path / "v1.2.md").is_file()


@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "long"])
def test_seconds_are_above_zero(
    bench: Callable[..., int], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench({"ours": contender()}, f"--seconds={word}")
    assert f"argument --seconds: invalid seconds value: '{word}'" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_said(
    bench: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        bench({"ours": contender()}, "--device=cuda")
    assert "argument --device: PyTorch finds no GPU here" in capsys.readouterr().err
