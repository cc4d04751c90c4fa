"""The environment in which a sanitizer reports, and how its reports are known."""

from __future__ import annotations

import os
import re
import subprocess

REPORT = re.compile(
    r"ERROR: AddressSanitizer: .*|runtime error: .*|SUMMARY: ThreadSanitizer: .*|WARNING: ThreadSanitizer: .*"
)

_PRELOADED = {"address": ("libasan.so", "libstdc++.so.6"), "thread": ("libtsan.so",)}


OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:exitcode=66", "TSAN_OPTIONS": "exitcode=66"}
"""Variables of any sanitized program: a report ends it, or sets its exit status to 66."""


def preloaded(build: str) -> dict[str, str]:
    """Variables for a Python that loads a library of a build; the sanitizer must be there before it.

    With libasan alone the first C++ exception would end the process, for the libstdc++ that it wraps comes later.
    """
    paths = [_library(name) for name in _PRELOADED.get(build, ())]
    return {**OPTIONS, "OMP_NUM_THREADS": "1", **({"LD_PRELOAD": " ".join(paths)} if paths else {})}


def _library(name: str) -> str:
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def emulator_environment(order: str = "forward", seed: int = 1) -> dict[str, str]:
    """This process's variables without those that would change what the emulator or a pytest started here does."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CUEMU_", "PYTEST_"))}
    return {**kept, "CUEMU_ORDER": order, "CUEMU_SEED": str(seed)}
