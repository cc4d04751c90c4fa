"""The benchmarks measure what they say: right results, honest times and memory."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks.bench_patches import patch_classifier
from benchmarks.bounds import Ceilings, Work, ceilings, work
from benchmarks.cases import (
    ADD,
    BODIES,
    CASES,
    CONV,
    DENSITY,
    ELISION,
    LOSS,
    MODELS,
    PATCHES,
    Case,
    Shape,
    chosen,
)
from benchmarks.compare import slower
from benchmarks.contenders import BF16_SUM_BOUND, Contender, WrongResultError, build
from benchmarks.memory import in_new_process
from benchmarks.report import Row, as_json, as_markdown, circumstances
from benchmarks.timing import Times, interleaved
from fcnkern import Resample

SMALL = {
    ADD: Shape(3, (6, 6), (14, 14)),
    CONV: Shape(8, (4, 4), (4, 4)),
    MODELS: Shape(3, (30, 20), (30, 20)),
    BODIES: Shape(3, (80, 70), (80, 70)),
    DENSITY: Shape(3, (30, 20), (30, 20)),
    ELISION: Shape(3, (30, 20), (30, 20)),
    PATCHES: Shape(3, (1, 2), (1, 2)),
}
SMALL_LABELS = Shape(5, (14, 14), (80, 80))
LINUX = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's record of the peak"
)


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


NETWORKS = (MODELS, DENSITY, PATCHES)
ALL_KINDS = [case for case in CASES if not case.apart or case.shape.size == (1, 1)]


@pytest.mark.parametrize("case", ALL_KINDS, ids=str)
def test_every_contender_computes_the_truth(case: Case) -> None:
    small = dataclasses.replace(case, shape=SMALL.get(case.operation, SMALL_LABELS), width=0.1)
    names = small.contenders(quick=True)
    assert names[0] == "ours"
    for name, contender in build(small, names).items():
        error = contender.error()
        assert error < 1e-5 or case.dtype != torch.float32 or "bf16" in name or case.operation in NETWORKS


def test_patches_are_measured_only_where_they_are_named() -> None:
    assert not any(case.operation == PATCHES for case in chosen("cpu"))
    assert {case.operation for case in chosen("cpu", only="patches: ")} == {PATCHES}


def test_the_classifier_of_patches_has_the_receptive_fields_of_the_paper() -> None:
    for body, field in (("AlexNet", 355), ("VGG16", 404)):
        case = next(case for case in CASES if case.body == body and case.operation == PATCHES)
        assert patch_classifier(case)[1:] == (field, 32)


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("wrong", [torch.tensor([1.0, 2.1]), torch.tensor([1.0, float("nan")])])
def test_a_wrong_result_is_refused(wrong: torch.Tensor) -> None:
    contender = Contender(lambda: (wrong,), lambda: (torch.tensor([1.0, 2.0]),))
    with pytest.raises(WrongResultError, match="off by"):
        contender.error()


def test_wrong_labels_are_refused() -> None:
    contender = Contender(lambda: (torch.tensor([[[1, 2]]]),), lambda: (torch.tensor([[[1, 3]]]),))
    with pytest.raises(WrongResultError, match="off by"):
        contender.error()


def test_a_lost_part_of_the_counts_is_a_wrong_result() -> None:
    counts = torch.full((21, 21), 500)
    moved = counts.clone()
    moved[0, 0] -= 4
    moved[0, 1] += 4
    assert Contender(lambda: (moved,), lambda: (counts,)).error() == pytest.approx(4 / 441 / 500)
    lost = counts.clone().fill_diagonal_(0)
    with pytest.raises(WrongResultError, match=r"off by 0\.024"):
        Contender(lambda: (lost,), lambda: (counts,)).error()


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
    extra = in_new_process(case_named("argmax 21×500×500 deconv(8, 31)"), "interpolate")
    assert extra is not None
    scores = 21 * 500 * 500 * 4
    assert scores <= extra < 1.5 * scores


@LINUX
@pytest.mark.parametrize(
    ("name", "megabytes"), [("loss 21×500×500 deconv(8, 31)", 2), ("argmax 21×500×500 deconv(8, 31)", 1)]
)
def test_ours_needs_no_full_resolution_memory(name: str, megabytes: float) -> None:
    extra = in_new_process(case_named(name), "ours")
    assert extra is not None
    assert extra < megabytes * 1e6


def test_one_backend_is_forced_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FCNKERN_BACKEND", raising=False)
    case = dataclasses.replace(case_named("argmax 21×500×500 deconv(8, 31)"), shape=SMALL_LABELS)
    assert build(case, ["ours, reference"])["ours, reference"].error() == 0
    with pytest.raises(ValueError, match="'nonsense' is unknown"):
        build(case, ["ours, nonsense"])["ours, nonsense"].run()
    assert "FCNKERN_BACKEND" not in os.environ


def test_the_bound_is_the_longest_of_bytes_flops_and_exponentials() -> None:
    can = Ceilings(bytes=1e9, flops=1e12, exponentials=1e8)
    assert can.bound(Work(2e9, 1e12, 1e8)) == 2000
    assert can.bound(Work(1e9, 3e12, 1e8)) == 3000
    assert can.bound(Work(1e9, 1e12, 4e8)) == 4000
    argmax = case_named("argmax 21×500×500 deconv(8, 31)")
    assert work(argmax).bytes == 4 * 21 * 70 * 70 + 500 * 500
    assert all(min(work(case)[:2]) >= 0 and max(work(case)) > 0 for case in CASES)


@pytest.mark.parametrize(("keep", "cell"), [(1.0, 1), (0.3, 8), (0.3, 5)])
@pytest.mark.parametrize(
    "resample", [Resample.deconv(8, 31), Resample.half_pixel()], ids=["deconv", "half_pixel"]
)
def test_a_loss_begins_only_cells_in_which_a_pixel_counts(resample: Resample, keep: float, cell: int) -> None:
    case = Case("", LOSS, Shape(3, (11, 9), (43, 37)), {}, resample, keep=keep, cell=cell, images=2)
    axes = resample.axes((11, 9), (43, 37))
    points = [[math.floor(y * axis.step + axis.shift) for y in range(axis.n_out)] for axis in axes]
    draws: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for y, row in enumerate(points[0]):
        for x, column in enumerate(points[1]):
            draws.setdefault((row, column), set()).add((y // cell, x // cell))
    cells = sum(1 - (1 - keep) ** len(each) for each in draws.values())
    assert work(case).exponentials == pytest.approx(2 * (13 * cells + keep * 43 * 37 / 4))


def test_of_two_measurements_the_greater_ceilings_hold() -> None:
    assert Ceilings(1e9, 3e12, 2e8).best(Ceilings(2e9, 1e12, 1e8)) == Ceilings(2e9, 3e12, 2e8)


def test_ceilings_are_positive_and_finite() -> None:
    found = ceilings("cpu")
    assert 0 < found.bytes < 1e15
    assert 0 < found.flops < 1e15
    assert found.exponentials is None


def test_only_what_is_slower_beyond_noise_and_beyond_the_rivals_is_named() -> None:
    def rows(ours: float, rival: float) -> list[Row]:
        def times(median: float) -> Times:
            return Times(0.9 * median, median, 0.95 * median, 1.05 * median, 9)

        return [
            Row("a case", "ours", times(ours), 1.0, None, None, 0.0),
            Row("a case", "eager", times(rival), 40.0, None, None, 0.0),
            Row.failed("a case", "compiled", "no compiler"),
        ]

    old = rows(1.0, 40.0)
    assert list(slower(old, rows(1.1, 40.0))) == []
    assert list(slower(old, rows(1.5, 60.0))) == []
    (line,) = slower(old, rows(1.5, 40.0))
    assert "a case: ours: 1 ms then, 1.5 ms now" in line


def test_a_rival_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Contender:
        def run() -> tuple[torch.Tensor, ...]:
            raise RuntimeError("no compiler\nand more")

        return Contender(run, run)

    ones = Contender(lambda: (torch.ones(2),), lambda: (torch.ones(2),))
    monkeypatch.setattr(command_line, "build", lambda *_: {"ours": ones, "interpolate": broken()})
    monkeypatch.setattr(command_line, "everyone", lambda *_: ["ours", "interpolate"])
    monkeypatch.setattr(command_line, "extra_bytes", lambda *_: 0)
    case = case_named("loss 21×500×500 half_pixel")
    ours, rival = command_line.measure(case, "cpu", True, 0.01)
    assert ours.times is not None
    assert rival.failure == "RuntimeError: no compiler"
    assert "failed: RuntimeError: no compiler" in as_markdown(circumstances("now"), [ours, rival])


def test_a_wrong_result_ends_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Contender(lambda: (torch.ones(2),), lambda: (torch.zeros(2) + 2,))
    monkeypatch.setattr(command_line, "build", lambda *_: {"ours": wrong})
    with pytest.raises(WrongResultError, match="ours: result is off"):
        list(command_line.measure(CASES[0], "cpu", True, 0.01))


def test_gradients_that_a_gpu_sums_in_bf16_have_their_bound() -> None:
    small = case_named("loss 2×32×32 half_pixel")
    assert build(small, ["interpolate, bf16"])["interpolate, bf16"].bound == BF16_SUM_BOUND
    rounded = dataclasses.replace(small, dtype=torch.bfloat16)
    found = build(rounded, ["ours", "interpolate"])
    assert (found["ours"].bound, found["interpolate"].bound) == (None, BF16_SUM_BOUND)


def test_a_rival_with_a_wrong_result_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ones, wrong = (Contender(lambda: (torch.ones(2),), lambda n=n: (torch.ones(2) * n,)) for n in (1, 2))
    monkeypatch.setattr(command_line, "build", lambda *_: {"ours": ones, "interpolate": wrong})
    monkeypatch.setattr(command_line, "everyone", lambda *_: ["ours", "interpolate"])
    monkeypatch.setattr(command_line, "extra_bytes", lambda *_: 0)
    ours, rival = command_line.measure(case_named("loss 21×500×500 half_pixel"), "cpu", True, 0.01)
    assert ours.times is not None
    assert rival.failure == "WrongResultError: result is off by 0.5, more than 5e-06"


def test_convolutions_in_fp32_are_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    build(case_named("loss 2×32×32 half_pixel"), ["ours"])
    assert not torch.backends.cudnn.allow_tf32


def test_report_shows_time_ratio_goal_and_memory() -> None:
    rows = [
        Row(
            "a case",
            "ours",
            Times(0.8, 1.0, 0.9, 1.2, 10),
            1.0,
            None,
            500_000,
            1e-7,
            0.25,
            work=Work(3e6, 2e9),
        ),
        Row("a case", "eager", Times(38.0, 40.0, 39.0, 42.0, 7), 40.0, 35, None, 2e-7),
    ]
    facts = circumstances("python -m benchmarks")
    ours, eager = as_markdown(facts, rows).splitlines()[-2:]
    assert (
        ours
        == "| a case | **ours** | 1 | 0.9 to 1.2 | 0.8 | 10 |  |  | 0.50 | 1.0e-07 | 0.25 | 3 | 2e+03 |  |"
    )
    assert eager == "|  | eager | 40 | 39 to 42 | 38 | 7 | 40.0 | 35 |  | 2.0e-07 |  |  |  |  |"
    read = json.loads(as_json(facts, rows))
    assert read["rows"][1]["times"]["median"] == 40.0
    assert read["circumstances"]["threads"] == torch.get_num_threads()
