"""The files of the checkout, as a clone or an unpacked sdist would hold them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE_BY_TOOLS = {"build", "dist", "__pycache__"}


def checkout_files() -> list[Path]:
    """Every file of the project, relative to its root: git's list, or without git all that no tool made."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [Path(name) for name in listed.splitlines() if (ROOT / name).is_file()]
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path for path in files if not is_made_by_tools(path)]


def is_made_by_tools(path: Path) -> bool:
    """Whether a build, an installation or a test run left this file."""
    folders = path.parts[:-1]
    hidden = any(part.startswith(".") and part != ".ci" for part in folders)
    return (
        hidden
        or not MADE_BY_TOOLS.isdisjoint(folders)
        or any(part.endswith(".egg-info") for part in folders)
        or path.suffix in {".so", ".pyc"}
        or path.name == "PKG-INFO"
    )
