"""The benchmarks measure what they say: right results, honest times and memory."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks.cases import ADD, CASES, CONV, Case, Shape
from benchmarks.contenders import Contender, build
from benchmarks.memory import extra_bytes
from benchmarks.report import Row, as_json, as_markdown, circumstances
from benchmarks.timing import Times, interleaved

SMALL = {ADD: Shape(3, (6, 6), (14, 14)), CONV: Shape(8, (4, 4), (4, 4))}
SMALL_LABELS = Shape(5, (14, 14), (80, 80))
LINUX = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's record of the peak"
)


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_contender_computes_the_truth(case: Case) -> None:
    small = dataclasses.replace(case, shape=SMALL.get(case.operation, SMALL_LABELS))
    names = small.contenders(quick=True)
    assert names[0] == "ours"
    for contender in build(small, names).values():
        assert contender.error() < 1e-5


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("wrong", [torch.tensor([1.0, 2.1]), torch.tensor([1.0, float("nan")])])
def test_a_wrong_result_is_refused(wrong: torch.Tensor) -> None:
    contender = Contender(lambda: (wrong,), lambda: (torch.tensor([1.0, 2.0]),))
    with pytest.raises(AssertionError, match="off by"):
        contender.error()


def test_wrong_labels_are_refused() -> None:
    contender = Contender(lambda: (torch.tensor([[[1, 2]]]),), lambda: (torch.tensor([[[1, 3]]]),))
    with pytest.raises(AssertionError, match="off by"):
        contender.error()


def test_times_are_those_of_each_call_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    order = []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def call(name: str, seconds: float) -> None:
        order.append(name)
        clock[0] += seconds

    calls = {"slow": lambda: call("slow", 2**-6), "quick": lambda: call("quick", 2**-10)}
    times = interleaved(calls, seconds=0.3)
    assert times["slow"] == pytest.approx(4 * (1e3 / 2**6,) + (10,))
    assert times["quick"] == pytest.approx(4 * (1e3 / 2**10,) + (160,))
    assert order[4:38] == 2 * ["slow", *16 * ["quick"]]


@LINUX
def test_memory_finds_the_full_resolution_scores_of_the_rival() -> None:
    extra = extra_bytes(case_named("argmax 21×500×500 deconv(8, 31)"), "interpolate")
    assert extra is not None
    scores = 21 * 500 * 500 * 4
    assert scores <= extra < 1.5 * scores


@LINUX
@pytest.mark.parametrize(
    ("name", "megabytes"), [("loss 21×500×500 deconv(8, 31)", 2), ("argmax 21×500×500 deconv(8, 31)", 1)]
)
def test_ours_needs_no_full_resolution_memory(name: str, megabytes: float) -> None:
    extra = extra_bytes(case_named(name), "ours")
    assert extra is not None
    assert extra < megabytes * 1e6


def test_report_shows_time_ratio_goal_and_memory() -> None:
    rows = [
        Row("a case", "ours", Times(0.8, 1.0, 0.9, 1.2, 10), 1.0, None, 500_000, 1e-7),
        Row("a case", "eager", Times(38.0, 40.0, 39.0, 42.0, 7), 40.0, 35, None, 2e-7),
    ]
    facts = circumstances("python -m benchmarks")
    ours, eager = as_markdown(facts, rows).splitlines()[-2:]
    assert ours == "| a case | **ours** | 1 | 0.9 to 1.2 | 0.8 | 10 |  |  | 0.50 | 1.0e-07 |"
    assert eager == "|  | eager | 40 | 39 to 42 | 38 | 7 | 40.0 | 35 |  | 2.0e-07 |"
    read = json.loads(as_json(facts, rows))
    assert read["rows"][1]["times"]["median"] == 40.0
    assert read["circumstances"]["threads"] == torch.get_num_threads()
