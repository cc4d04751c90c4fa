"""Staged training: each stage from the one before, resumed in the stage where it stood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fcnkern.cli import main
from fcnkern.engine import TrainSettings, load_checkpoint, load_trained, start_run
from fcnkern.engine.config import CONFIG
from fcnkern.engine.lock import only_run_in
from fcnkern.engine.log import read_log
from fcnkern.engine.stages import stage_settings
from tests.engine._runs import TINY, losses, stopping_after

WORDS = ["train", *(f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()), "--quiet"]
NAMES = ("32s", "16s", "8s")


def staged(**changes: Any) -> TrainSettings:
    return TrainSettings(**{**TINY, "iterations": 2, "stages": (32, 16, 8), **changes})


def test_every_stage_starts_as_the_one_before_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--stages=32,16,8", "--stage-lr=0.1", "--val-split=val", "--iterations=2", f"--out={tmp_path}"]
    assert main([*WORDS, *words]) == 0
    *_, first, second, third, last = capsys.readouterr().out.splitlines()
    for name, line in zip(NAMES, (first, second, third), strict=True):
        row = read_log(tmp_path / name / "log.csv")[-1]
        assert line.split()[:2] == [name, "2"]
        assert f"{100 * float(row['mean_iu']):.2f} %" in line
    assert last == f"trained 3 stages; the last one is in {tmp_path / '8s'}"
    for name, before in (("16s", "32s"), ("8s", "16s")):
        settings = load_trained(tmp_path / name / "last.pt").settings
        assert settings.init_from == str(tmp_path / before / "last.pt")
        fresh = start_run(settings, tmp_path / "fresh" / name, quiet=True).model
        coarse = load_trained(tmp_path / before / "last.pt").model
        assert coarse.score_fr.weight.any()
        assert torch.equal(fresh.score_fr.weight, coarse.score_fr.weight)
        assert torch.equal(fresh.get_parameter("fc6.weight"), coarse.get_parameter("fc6.weight"))
        assert not fresh.get_parameter(f"score_{fresh.taps[0]}.weight").any()
    rates = [float(read_log(tmp_path / name / "log.csv")[0]["lr"]) for name in NAMES]
    assert rates == pytest.approx([0.02, 0.002, 0.0002])


@pytest.mark.parametrize("every", [1, 3])
def test_a_stopped_run_goes_on_in_its_stage(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = [*WORDS, "--stages=32,16,8", "--iterations=2", "--sampling=0.5", "--cell=4"]
    assert main([*words, f"--out={whole}"]) == 0
    resume, code, stops = [f"--out={parts}"], 143, 0
    while code == 143:
        monkeypatch.setattr("fcnkern.engine.trainer.stop_requested", stopping_after(every))
        code = main([*words, *resume] if stops == 0 else ["train", "--quiet", "--resume", str(parts)])
        stops += code == 143
        assert stops < 8
    assert code == 0
    assert stops == 6 // every
    assert f"of stage 32s; go on with: fcnkern train --resume {parts}" in capsys.readouterr().err or every > 2
    for name in NAMES:
        assert losses(parts / name) == losses(whole / name)
        ours, theirs = (load_checkpoint(out / name / "last.pt")["state_dict"] for out in (parts, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_complete_run_goes_on_with_its_last_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "--stages=32,16,8", "--iterations=2", f"--out={tmp_path}"]) == 0
    before = {name: (tmp_path / name / "last.pt").read_bytes() for name in NAMES}
    resume = ["train", "--quiet", "--resume", str(tmp_path)]
    assert main([*resume, "--iterations=2"]) == 0
    assert {name: (tmp_path / name / "last.pt").read_bytes() for name in NAMES} == before
    capsys.readouterr()
    assert main([*resume, "--iterations=5"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:4]] == ["2", "2", "5"]
    assert [(tmp_path / name / "last.pt").read_bytes() == before[name] for name in NAMES] == [
        True,
        True,
        False,
    ]
    assert len(losses(tmp_path / "8s")) == 5


def test_a_kill_before_the_first_checkpoint_loses_nothing(tmp_path: Path) -> None:
    assert main([*WORDS, "--stages=32,16", "--iterations=1", f"--out={tmp_path}"]) == 0
    expected = losses(tmp_path / "16s")
    (tmp_path / "16s" / "last.pt").unlink()
    assert main(["train", "--quiet", "--resume", str(tmp_path)]) == 0
    assert losses(tmp_path / "16s") == expected
    for name in ("32s", "16s"):
        (tmp_path / name / "last.pt").unlink()
    assert main(["train", "--quiet", "--resume", str(tmp_path)]) == 0
    assert losses(tmp_path / "16s") == expected


def test_stages_that_another_process_trains_keep_their_settings(tmp_path: Path) -> None:
    assert main([*WORDS, "--stages=16,8", "--iterations=1", f"--out={tmp_path}"]) == 0
    before = (tmp_path / CONFIG).read_text()
    with only_run_in(tmp_path):
        assert main(["train", "--quiet", "--resume", str(tmp_path), "--iterations=3"]) == 2
    assert (tmp_path / CONFIG).read_text() == before
    assert len(losses(tmp_path / "8s")) == 1


def test_the_plan() -> None:
    plan = stage_settings(
        staged(arch="fcn8s_googlenet", time_limit=30.0, weights="w.npz", lr=0.1, stage_lr=0.01)
    )
    assert [stage.arch for stage in plan.values()] == [f"fcn{n}s_googlenet" for n in (32, 16, 8)]
    assert [stage.time_limit for stage in plan.values()] == [10.0] * 3
    assert [stage.iterations for stage in plan.values()] == [2] * 3
    assert [stage.weights for stage in plan.values()] == ["w.npz", None, None]
    assert [stage.lr for stage in plan.values()] == pytest.approx([0.1, 1e-3, 1e-5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages": (8, 16)},
            r"stages must be 32,16,8 or neighbours among them, in this order, got \(8, 16\)",
        ),
        ({"stages": (32, 8)}, "stages must be"),
        ({"stages": ()}, "stages must be"),
        ({"arch": "fcn8s-atonce"}, "at once is without stages"),
        ({"aux": 1.0}, "fcn32s has one stream"),
    ],
)
def test_bad_stages_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        staged(**changes)


def test_folders_are_not_overwritten_nor_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main([*WORDS, "--stages=16,8", "--iterations=1", f"--out={run}"]) == 0
    for words, message in (
        ([*WORDS, f"--out={run}"], f"{run} holds a run already: go on with --resume {run}"),
        (["train", "--resume", str(tmp_path)], f"{tmp_path} holds no run"),
        (["train", "--resume", str(run), "--out=x"], "out cannot change"),
        (["train", "--resume", str(run), "--lr=3"], "lr cannot change when resuming"),
        (["train", "--resume", str(run), "--recipe=heavy"], "recipe is for new runs"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
