"""What CI runs is the same tomorrow, and says what it lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.packaging._files import ROOT

SCRIPT = ROOT / ".ci" / "run"


def test_linters_are_of_one_version() -> None:
    wanted = re.search(r"grep -oE '(.*)' pyproject.toml", SCRIPT.read_text())
    assert wanted is not None
    pinned = [each.group() for each in re.finditer(wanted[1], (ROOT / "pyproject.toml").read_text())]
    assert [each.partition("==")[0] for each in pinned] == ["ruff", "mypy"]


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2'; exec(sys.argv[1])"
    fakes = {
        "python3": f'[ "$1" = -c ] || exit 99\nexec "{sys.executable}" -c "{old}" "$2"',
        "id": "echo 1000",  # not root: nothing is installed
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    said = subprocess.run(
        ["bash", str(SCRIPT)], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr.strip() == "Python 3.10 or newer is needed, python3 is 3.9.2"
