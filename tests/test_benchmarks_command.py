"""The command line of the benchmarks: what it runs, what it refuses, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fcnkern

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
