"""The one command for a machine with a GPU: what it runs, and that nothing it finds is lost."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks import gpu
from benchmarks.cases import BODIES, CONFUSION, MODELS, Case, chosen
from benchmarks.command import write
from benchmarks.gpu import Command, Result, Step, run, steps

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


def test_output_that_is_no_text_is_kept(tmp_path: Path) -> None:
    cut = Command("one", [*SAY, "import os; os.write(1, 'fine\\n2×2'.encode()[:-2])"])
    assert run(Step("a step", [cut], 30), tmp_path).state == "passed"
    assert "fine" in (tmp_path / "a step.txt").read_text()


def test_a_step_that_cannot_run_says_why(tmp_path: Path) -> None:
    assert run(Step("a step", [], 1, "no tool"), tmp_path).state == "no tool"


def test_a_command_that_cannot_start_fails_and_ends_nothing(tmp_path: Path) -> None:
    commands = [Command("one", [str(tmp_path / "pytest")]), Command("two", [*SAY, "print('other')"])]
    outcome = run(Step("a step", commands, 30), tmp_path)
    assert outcome.state == "failed"
    assert "No such file" in outcome.last_lines["one"]
    assert outcome.last_lines["two"] == "other"


def test_a_command_without_time_is_not_started(tmp_path: Path) -> None:
    outcome = run(Step("a step", [Command("one", [*SAY, "print('ran')"])], 0), tmp_path)
    assert outcome.state == "out of time"
    assert outcome.last_lines["one"] == "not started"


def test_where_no_test_is_chosen_none_has_passed(tmp_path: Path) -> None:
    assert run(Step("tests", [Command("one", [*SAY, "raise SystemExit(5)"])], 30), tmp_path).state == "failed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_was_started(tmp_path: Path, number: signal.Signals) -> None:
    beats = tmp_path / "beats"
    beat = f"import time\nwhile True:\n open({str(beats)!r}, 'a').write('.')\n time.sleep(0.02)"
    code = (
        "import sys; from benchmarks import gpu; from benchmarks.gpu import Command, Step\n"
        f"gpu.steps = lambda *_: [Step('one', [Command('one', [sys.executable, '-c', {beat!r}])], 60)]\n"
        f"sys.argv = ['gpu', '--out', {str(tmp_path / 'out')!r}]\n"
        "gpu.main()"
    )
    with subprocess.Popen([*SAY, code], cwd=gpu.ROOT) as process:
        deadline = time.monotonic() + 60
        while not beats.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    last = beats.stat().st_size
    time.sleep(1)
    assert beats.stat().st_size == last > 0


def commands(step: str, tmp_path: Path, dry: bool = False) -> dict[str, list[str]]:
    """The commands of a step, by name."""
    (found,) = (each for each in steps(tmp_path, dry) if each.name == step)
    return {command.name: list(command.arguments) for command in found.commands}


def test_all_steps_fit_into_nine_minutes_and_eight_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = list(steps(tmp_path, dry=False))
    assert [step.name for step in planned] == ["build", "tests", "sanitizer", "benchmarks"]
    assert sum(step.seconds for step in planned) < 540

    def pretended(command: Command, deadline: float) -> Result:
        if "--out" in command.arguments:
            out = Path(command.arguments[command.arguments.index("--out") + 1])
            write(out, "{}", "a table")
        return Result(command.name, "", "passed", "")

    monkeypatch.setattr(gpu, "_run", pretended)
    monkeypatch.setattr(gpu, "steps", lambda out, dry: [step._replace(missing=None) for step in planned])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    assert gpu.main() == 0
    names = {path.name for path in tmp_path.iterdir()}
    texts = {"build.txt", "tests.txt", "sanitizer.txt", "benchmarks.txt"}
    assert names == texts | {"figures.json", "figures.md", "report.json"}
    assert len(names) <= 8


def test_the_package_is_built_for_the_gpu_that_is_there(tmp_path: Path) -> None:
    install = commands("build", tmp_path)["install"]
    assert install[:2] == ["env", "FCNKERN_CUDA_ARCHS=native"]
    assert install[-1] == str(gpu.ROOT)
    assert [step.missing for step in steps(tmp_path, dry=True) if step.name == "build"] != [None]


def test_each_file_holds_tests_that_run_on_a_gpu(tmp_path: Path) -> None:
    tests = commands("tests", tmp_path)
    assert {"test_upsample_cross_entropy", "test_conv1x1", "test_on_gpu", "test_triton"} <= set(tests)
    for pytest_, *options, words, place in tests.values():
        assert Path(pytest_).parent == Path(sys.executable).parent
        assert (options[-1], words) == ("-k", "triton or cuda or gpu")
        file, _, test = place.partition("::")
        text = f"{Path(file).stem}\n{Path(file).read_text()}"
        assert re.search(r"backend: str|test_\w*(triton|cuda|gpu)", text), file
        assert f"def {test}" in text
    assert tests["test_step"][-1].endswith("::test_a_run_moves_between_gpu_and_cpu")


def test_memory_and_races_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/compute-sanitizer")
    found = commands("sanitizer", tmp_path)
    assert len(found) == 4
    for name, arguments in found.items():
        setter, uncached, tool, option, kind, *_, backend, file = arguments
        assert (setter, uncached) == ("env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1")
        assert (tool, option, backend) == ("/bin/compute-sanitizer", "--tool", "cuda")
        assert arguments[5:7] == ["--error-exitcode", "1"]
        assert (arguments[7:9] == ["--report-api-errors", "no"]) == (kind == "memcheck")
        assert name == f"{kind} {Path(file).stem}"
        assert Path(file).is_file()
    assert {arguments[4] for arguments in found.values()} == {"memcheck", "racecheck"}


def cases_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool) -> list[Case]:
    """What the planned command measures, in order."""
    python, _, module, *options = commands("benchmarks", tmp_path, dry)["figures"]
    assert (python, module) == (sys.executable, "benchmarks")
    assert options[:2] == ["--out", str(tmp_path / "figures")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options])
    return command_line.wanted(command_line.options())


def test_main_cases_and_networks_are_measured_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = cases_of(tmp_path, monkeypatch, dry=False)
    assert {case.name for case in cases} == {case.name for case in chosen("cuda")}
    assert max(cases.index(case) for case in cases if case.quick) < 20
    networks = [case for case in cases if case.operation in (MODELS, BODIES) and case.width == 1]
    assert max(map(cases.index, networks)) < 30 < len(cases) / 2


def test_a_rehearsal_measures_a_network_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = cases_of(tmp_path, monkeypatch, dry=True)
    assert {case.operation for case in cases} == {BODIES, CONFUSION}
    assert {"test_confusion_matrix", "test_triton"} < set(commands("tests", tmp_path, dry=True))


def test_a_failure_is_in_the_report_and_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Step("tests", [Command("one", [*SAY, "print('2 failed'); raise SystemExit(1)"])], 30)
    monkeypatch.setattr(gpu, "steps", lambda out, dry: [bad])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    assert gpu.main() == 1
    (report,) = json.loads((tmp_path / "report.json").read_text())
    assert report["state"] == "failed"
    assert "2 failed" in capsys.readouterr().out
