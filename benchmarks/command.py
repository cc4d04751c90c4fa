"""What the command lines of the benchmarks share."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "FCNKERN_BACKEND", "FCNKERN_ISA")
"""Of the environment, those that change what is measured."""


def recorded(module: str, arguments: Sequence[str]) -> str:
    """The command that runs the same again."""
    settings = [f"{name}={shlex.quote(os.environ[name])}" for name in VARIABLES if name in os.environ]
    return " ".join([*settings, shlex.join(["python", "-m", module, *arguments])])


def seconds(text: str) -> float:
    """An option's seconds.

    Raises:
        ValueError: they are not above 0.
    """
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def writable(text: str) -> Path:
    """An option's path of files to write, in a folder that is made where it is missing.

    Raises:
        ArgumentTypeError: nothing can be written there.
    """
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {path.parent}: {error.strerror}") from None


def write(out: Path, json: str, markdown: str) -> None:
    """Writes OUT.json and OUT.md, whatever dots are in OUT."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(f"{out.name}.json").write_text(json)
    out.with_name(f"{out.name}.md").write_text(markdown)
