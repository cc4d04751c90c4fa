"""All evidence that a GPU can give, by one command and without a network: ``python -m benchmarks.gpu --out DIR``.

Builds and installs the package, runs the tests of the GPU backends, runs some of them under compute-sanitizer,
measures operations and whole networks; nine minutes at most. What a step prints goes to DIR/STEP.txt, the figures to
DIR/figures.json and figures.md, what became of the steps to DIR/report.json; a short table comes last.

``--dry-run`` goes the same way on a machine with no GPU: what is installed, few tests, two cases,
a whole network among them, no sanitizer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PARALLEL_TESTS = 8
SANITIZED = ("tests/ops/test_confusion_matrix.py", "tests/ops/test_upsample_argmax.py")
CHECKS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}
"""Tools of compute-sanitizer and their options: what fails as PyTorch looks for a driver's functions is no error."""
NETWORK_TESTS = (
    "tests/models/test_triton.py",
    "tests/engine/test_step.py::test_a_run_moves_between_gpu_and_cpu",
)
NO_GPU_TESTS = ("_cpu", "test_labels", "test_resample", "test_tables")
"""How the files in tests/ops end in which no test runs on a GPU."""
FIRST_CASES = (
    "loss 21×500×500 deconv(8, 31)",
    "argmax 21×500×500",
    "skip step 512→21×70×70",
    "confusion of",
    "max pool 2×2 of 16×698×698",
    "FCN-8s, 8 ×",
    "FCN-8s on",
    "FCN-8s, ",
    "FCN-8s",
    "",
)
"""Cases that are measured first: the time may not suffice for all. The last text is in every name."""
DRY_CASES = ("FCN-8s on AlexNet", "confusion of label maps")


class Command(NamedTuple):
    """One process of a step."""

    name: str
    arguments: Sequence[str]


class Step(NamedTuple):
    """Commands that run side by side, and the seconds that they have; ``missing``: why they cannot run."""

    name: str
    commands: Sequence[Command]
    seconds: float
    missing: str | None = None


class Outcome(NamedTuple):
    """What became of a step: "passed", "failed", "out of time" or the reason why it did not run."""

    step: str
    state: str
    seconds: float
    last_lines: dict[str, str]


def steps(out: Path, dry: bool) -> Iterator[Step]:
    """What is done, in order."""
    python = [sys.executable, "-m"]
    pip = [*python, "pip", "install", "--no-build-isolation", "--no-deps", str(ROOT)]
    install = Command("install", ["env", "FCNKERN_CUDA_ARCHS=native", *pip])
    yield Step("build", [install], 120, "a dry run takes what is installed" if dry else None)
    pytest = str(Path(sys.executable).with_name("pytest"))  # python -m pytest would take the checkout
    quiet = [pytest, "-q", "-p", "no:cacheprovider", "-k"]
    # Without a GPU an emulator for CUDA would be built first.
    backends = "triton or gpu" if dry else "triton or cuda or gpu"
    tests = [Command(Path(each).stem, [*quiet, backends, str(ROOT / each)]) for each in tested(dry)]
    yield Step("tests", tests, 150)
    sanitizer = shutil.which("compute-sanitizer")
    # In blocks that PyTorch keeps, it would not see where a tensor ends.
    checked = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", str(sanitizer), "--tool"]
    found = ["--error-exitcode", "1"]  # else what it finds does not show in its status
    checks = [
        Command(
            f"{tool} {Path(file).stem}",
            [*checked, tool, *found, *options, *quiet, "cuda", str(ROOT / file)],
        )
        for tool, options in CHECKS.items()
        for file in SANITIZED
    ]
    yield Step("sanitizer", checks, 90, None if sanitizer else "compute-sanitizer is not in PATH")
    device, cases = ("cpu", DRY_CASES) if dry else ("cuda", FIRST_CASES)
    measure = [*python, "benchmarks", "--out", str(out / "figures"), "--seconds", "0.7", "--device", device]
    only = [word for text in cases for word in ("--only", text)]
    yield Step("benchmarks", [Command("figures", [*measure, *only])], 175)


def tested(dry: bool) -> list[str]:
    """The tests that run on a GPU where there is one, from the root."""
    if dry:
        return ["tests/ops/test_confusion_matrix.py", *NETWORK_TESTS]
    files = sorted((ROOT / "tests" / "ops").glob("test_*.py"))
    chosen = [file for file in files if not file.stem.endswith(NO_GPU_TESTS)]
    return [*(str(file.relative_to(ROOT)) for file in chosen), *NETWORK_TESTS]


def run(step: Step, out: Path) -> Outcome:
    """Runs the commands of a step, at most eight at once, and keeps what they print."""
    if step.missing is not None:
        return Outcome(step.name, step.missing, 0.0, {})
    start = time.monotonic()
    with ThreadPoolExecutor(PARALLEL_TESTS) as pool:
        results = list(pool.map(lambda command: _run(command, start + step.seconds), step.commands))
    texts = [f"\n== {each.name}: {each.state}, {each.command}\n{each.output}" for each in results]
    (out / f"{step.name}.txt").write_text("".join(texts))
    states = [each.state for each in results]
    state = next((bad for bad in ("out of time", "failed") if bad in states), "passed")
    lines = {each.name: _last_line(each.output) for each in results}
    return Outcome(step.name, state, time.monotonic() - start, lines)


class Result(NamedTuple):
    """How a command ended and what it printed."""

    name: str
    command: str
    state: str
    output: str


def _run(command: Command, deadline: float) -> Result:
    """Runs a command, and ends it and what it has started at the deadline."""

    def result(state: str, output: str) -> Result:
        return Result(command.name, shlex.join(command.arguments), state, output)

    if time.monotonic() >= deadline:
        return result("out of time", "not started\n")
    try:
        process = _start(command)
    except OSError as error:
        return result("failed", f"{error}\n")
    try:
        output, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        return result("failed" if process.returncode else "passed", output)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return result("out of time", process.communicate()[0])
    finally:
        with _starting:
            _started.discard(process.pid)


def _start(command: Command) -> subprocess.Popen[str]:
    """A process with a session of its own, so that what it starts ends with it."""
    with _starting:
        process = subprocess.Popen(
            command.arguments,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        _started.add(process.pid)
    return process


_starting = threading.Lock()
_started: set[int] = set()


def _end_all(signum: int, frame: object) -> None:
    """Ends this process and all that it has started, which no signal from a terminal reaches."""
    _starting.acquire()  # for good: no thread starts another
    for group in _started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    os._exit(128 + signum)


def _last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results are written")
    parser.add_argument("--dry-run", action="store_true", help="rehearse on a machine with no GPU")
    given = parser.parse_args()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _end_all)
    given.out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for step in steps(given.out.resolve(), given.dry_run):
        outcomes.append(run(step, given.out))
        print(f"{step.name}: {outcomes[-1].state}, {outcomes[-1].seconds:.0f} s", flush=True)
        report = [outcome._asdict() for outcome in outcomes]
        (given.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print()
    for outcome in outcomes:
        print(f"{outcome.step:12}{outcome.state:24}{outcome.seconds:6.0f} s")
        for name, line in outcome.last_lines.items():
            if outcome.step == "tests":
                print(f"    {name:44}{line}")
    figures = given.out / "figures.md"
    if figures.is_file():
        print(f"\n{figures.read_text()}")
    return int(any(outcome.state in ("failed", "out of time") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
