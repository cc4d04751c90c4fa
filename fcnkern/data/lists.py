"""Folders and text files of data sets, with errors that say what is there instead."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fcnkern.data.sample import DataError

_NOT_SPLITS = ("classes", "palette", "label_colors", "license", "readme")


def existing(path: str | Path) -> Path:
    """The folder. Raises: FileNotFoundError naming what its nearest existing parent holds."""
    root = Path(path)
    if not root.is_dir():
        parent = next(p for p in (root, *root.absolute().parents) if p.is_dir())
        raise FileNotFoundError(f"data folder {root} does not exist; {parent} holds {contents(parent)}")
    return root


def contents(root: Path, limit: int = 12) -> str:
    """Names of what lies in a folder, for messages."""
    names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    return (
        ", ".join(names[:limit]) + (f", ... ({len(names)} entries)" if len(names) > limit else "")
        or "nothing"
    )


def find_root(path: str | Path, marker: str, places: Iterable[str] = ()) -> Path:
    """The folder that holds `marker`, which may be a pattern: `path` itself or one of `places` below it.

    Raises: FileNotFoundError if there is none, DataError if there are several.
    """
    root = existing(path)
    below = (p for place in places for p in sorted(root.glob(place)))
    found = [p for p in (root, *below) if any(p.glob(marker))]
    if not found:
        raise FileNotFoundError(f"{root} has no {marker}; it holds {contents(root)}")
    if len(found) > 1:
        several = ", ".join(str(p) for p in found)
        raise DataError(f"{root} holds several copies, {several}: name one of these folders")
    return found[0]


def read_lines(path: Path) -> list[str]:
    """The lines that are neither blank nor comments (# to the end), stripped.

    Raises: FileNotFoundError naming the folder's content; DataError if the text is not UTF-8 or has no line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"list {path} is missing; {path.parent} holds {_contents_of(path.parent)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"{path} is empty, wanted a line for each entry")
    return lines


def lists_in(folder: Path) -> dict[str, Path]:
    """The text files of a folder that may be lists of a split, by name; none where the folder is missing."""
    return {p.stem: p for p in sorted(folder.glob("*.txt")) if p.stem.lower() not in _NOT_SPLITS}


def _contents_of(folder: Path) -> str:
    return contents(folder) if folder.is_dir() else "nothing, it does not exist"
