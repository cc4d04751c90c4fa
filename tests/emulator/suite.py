"""Runs part of the tests of the operations again, in another build of the emulator or order of threads."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.emulator.build import CSRC, ROOT, detector, emulated_extension
from tests.emulator.sanitizers import REPORT, emulator_environment, preloaded

TIMEOUT = 500  # seconds
PROBE = Path(__file__).with_name("probe.py")
CHOSEN = {
    "confusion_matrix": "many_steps or scores_and_strided or straight_from_scores",
    "conv1x1": "gradient_laid_out or layouts or without_bias or dtypes or (every_mode and 67 and nchw)",
    "max_pool2d": "every_small_size or (infinities and relu)",
    "upsample_add": "(kinds_of_weight_and_skip and stride0) or (kernels_and_strides and stride3)",
    "upsample_argmax": "layouts_and_confidence",
    "upsample_cross_entropy": "label_types or depthwise or balanced or hard_pixels or (at_full_size and valid)",
}
"""Which tests of an operation run again, as an expression for pytest's -k: quick ones that together launch every
kernel. ThreadSanitizer takes twenty times as long as the kernels alone."""


class Run(NamedTuple):
    """How the kernels run: the build, and the order of threads with the seed of random ones."""

    build: str
    order: str = "forward"
    seed: int = 1

    def variables(self) -> dict[str, str]:
        """The environment variables by which a test is run again as this run does."""
        order = {"CUEMU_ORDER": self.order, "CUEMU_SEED": str(self.seed)}
        return {"FCNKERN_TEST_EMULATOR": self.build, **order, **preloaded(self.build)}


class Result(NamedTuple):
    """What came of a run: tests that passed, by file; kernels launched; and how to run it again."""

    status: int
    output: str
    passed: Counter[str]
    launched: set[str]
    replay: str

    def __str__(self) -> str:
        reports = "\n".join(REPORT.findall(self.output))
        return f"exit status {self.status}; run again by\n{self.replay}\n{reports}\n{self.output[-8000:]}"


def run_pytest(run: Run, files: list[Path], expression: str, folder: Path) -> Result:
    """Runs tests in a process of their own; ``folder`` is for what it writes."""
    emulated_extension(run.build), detector(run.build, ".so")  # not under the sanitizers
    xml, launches = folder / "tests.xml", folder / "launches"
    launches.write_text("")
    command = [sys.executable, "-m", "pytest", "-qxs", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    command += ["-k", expression, *map(str, files)]
    environment = {**emulator_environment(), **run.variables(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, f"--junitxml={xml}"],
        env={**environment, "CUEMU_LAUNCHES": str(launches)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=folder,
    )
    variables = [f"{name}={shlex.quote(text)}" for name, text in run.variables().items()]
    replay = " ".join([*variables, shlex.join(command)])
    passed = _passed(xml) if xml.exists() else Counter()
    return Result(done.returncode, done.stdout, passed, set(launches.read_text().split()), replay)


def _passed(xml: Path) -> Counter[str]:
    """How many tests passed in each file, which is named without test_ and suffix."""
    cases = [case for case in ElementTree.parse(xml).iter("testcase") if len(case) == 0]
    modules = [case.attrib["classname"].rpartition(".")[2] for case in cases]
    return Counter(module.removeprefix("test_") for module in modules)


def operations() -> list[str]:
    """The operations with CUDA kernels."""
    folder = ROOT / "fcnkern" / "backends" / "cuda"
    return [name for name in CHOSEN if (folder / f"{name}.py").is_file()]


def run_operations(run: Run, folder: Path) -> Result:
    """Runs what is chosen of the tests of all operations."""
    parts, files = [], []
    for name in operations():
        found = sorted((ROOT / "tests" / "ops").glob(f"test_{name}*.py"))
        files += [file for file in found if not file.stem.endswith(("_cpu", "_triton"))]
        parts.append(f"({name} and ({CHOSEN[name]}))")
    return run_pytest(run, files, f"cuda and ({' or '.join(parts)})", folder)


def untested(result: Result) -> list[str]:
    """The operations of which no test has passed."""
    return [name for name in operations() if not any(file.startswith(name) for file in result.passed)]


def never_launched(result: Result) -> set[str]:
    """The kernels of csrc/cuda that did not run."""
    text = "".join(path.read_text() for path in sorted((CSRC / "cuda").glob("*.cu*")))
    calls = re.findall(r"\blaunch\(([^,;]*\"[^,;]*),", text)
    return {name for call in calls for name in re.findall(r'"(\w+)"', call)} - result.launched


def assert_one_report(run: Run, name: str, folder: Path) -> None:
    """That a sanitizer reports the faulty probe of this name, and none of the sound ones."""
    result = run_pytest(run, [PROBE], f"sound or {name}", folder)
    assert result.status == 66, result
    assert result.output.startswith(8 * "."), result  # what pytest prints of the sound ones
    summaries = re.findall("SUMMARY: .*", result.output)
    assert [summary.endswith(f" in {name}_kernel") for summary in summaries] == [True], result


def assert_operations_silent(run: Run, folder: Path) -> None:
    """That the tests of all operations pass, with every kernel, and that no sanitizer reports."""
    result = run_operations(run, folder)
    assert result.status == 0, result
    assert REPORT.findall(result.output) == []
    assert untested(result) == []
    assert never_launched(result) == set()
