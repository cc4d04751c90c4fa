"""Checkpoints: written atomically, read without running any code from the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fcnkern._files import read_plain, write_atomically

LAST = "last.pt"
FORMAT = "fcnkern-checkpoint"
FORMAT_VERSION = 1
REQUIRED = {
    "format_version": int,
    "state_dict": Mapping,
    "classes": list,
    "palette": torch.Tensor,
    "preprocess": str,
    "settings": dict,
    "iteration": int,
}


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Writes a checkpoint atomically; ``content`` holds tensors, numbers, strings, lists and dicts only.

    Raises:
        OSError: it cannot be written, for example because the disk is full; an older file of the name is untouched.
    """
    record = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    try:
        write_atomically(Path(path), lambda file: torch.save(record, file))
    except (OSError, RuntimeError) as error:  # RuntimeError is torch's, around a failing write
        reason = error if isinstance(error, OSError) else error.__context__ or error
        kept = "; what it held before is intact" if Path(path).exists() else ""
        raise OSError(f"checkpoint {path} cannot be written: {reason}{kept}") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint, of a run's folder the newest, onto the CPU, as plain data (``weights_only=True``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, or not a checkpoint of this library, or of a newer format.
    """
    folder = path = Path(path)
    if path.is_dir():
        path = path / LAST
    if not path.is_file():
        stages = ", ".join(sorted(str(found.parent) for found in folder.glob(f"*/{LAST}")))
        raise FileNotFoundError(f"checkpoint {path} does not exist{stages and f'; there are {stages}'}")
    if path.suffix.lower() == ".caffemodel":
        raise ValueError(
            f"{path} is no checkpoint: 'fcnkern convert --released NAME' makes one of the authors' models"
        )
    try:
        record = read_plain(path)
    except Exception as error:  # torch.load raises many types on a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"checkpoint {path} cannot be read, it is damaged or no checkpoint: {reason}"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of fcnkern (no format entry {FORMAT!r})")
    version = record.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(f"checkpoint {path} has format {version}, this fcnkern reads up to {FORMAT_VERSION}")
    missing = [name for name in REQUIRED if name not in record]
    if missing:
        raise ValueError(f"checkpoint {path} lacks {', '.join(missing)}")
    for name, kind in REQUIRED.items():
        if not isinstance(record[name], kind):
            came = type(record[name]).__name__
            raise ValueError(f"checkpoint {path}: {name} is a {came}, wanted {kind.__name__}")
    return record


def iteration_reached(path: str | Path) -> int:
    """Iterations done at a checkpoint; 0 where there is none, or a damaged one: for that an older one is resumed."""
    try:
        reached: int = load_checkpoint(path)["iteration"]
    except (FileNotFoundError, ValueError):
        return 0
    return reached
