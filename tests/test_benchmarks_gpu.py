"""The one command for a machine with a GPU: what it runs, and that nothing it finds is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Command, Step, run, steps

SAY = [sys.executable, "-c"]


@pytest.mark.parametrize(
    ("code", "seconds", "state"),
    [
        ("print('fine')", 30, "passed"),
        ("print('bad'); raise SystemExit(1)", 30, "failed"),
        ("import time; print('slow', flush=True); time.sleep(60)", 1, "out of time"),
    ],
)
def test_a_step_ends_and_its_output_is_kept(tmp_path: Path, code: str, seconds: float, state: str) -> None:
    step = Step("a step", [Command("one", [*SAY, code]), Command("two", [*SAY, "print('other')"])], seconds)
    outcome = run(step, tmp_path)
    assert outcome.state == state
    assert outcome.last_lines["one"] in ("fine", "bad", "slow")
    text = (tmp_path / "a step.txt").read_text()
    assert f"== one: {state}" in text
    assert "other" in text


def test_what_a_command_has_started_ends_with_it(tmp_path: Path) -> None:
    nested = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    outcome = run(Step("a step", [Command("one", [*SAY, nested])], 1), tmp_path)
    assert outcome.state == "out of time"
    assert outcome.seconds < 30


def test_a_step_that_cannot_run_says_why(tmp_path: Path) -> None:
    assert run(Step("a step", [], 1, "no tool"), tmp_path).state == "no tool"


def test_all_steps_fit_into_nine_minutes_and_eight_files(tmp_path: Path) -> None:
    planned = list(steps(tmp_path, dry=False))
    assert [step.name for step in planned] == ["build", "tests", "sanitizer", "benchmarks"]
    assert sum(step.seconds for step in planned) <= 540
    tested = next(step for step in planned if step.name == "tests")
    assert {"test_upsample_cross_entropy", "test_conv1x1"} <= {command.name for command in tested.commands}


def test_a_failure_is_in_the_report_and_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Step("tests", [Command("one", [*SAY, "print('2 failed'); raise SystemExit(1)"])], 30)
    monkeypatch.setattr(gpu, "steps", lambda out, dry: [bad])
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    assert gpu.main() == 1
    (report,) = json.loads((tmp_path / "report.json").read_text())
    assert report["state"] == "failed"
    assert "2 failed" in capsys.readouterr().out
