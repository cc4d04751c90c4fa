"""Files: whole or as they were, whatever happens while they are written; read without running code of theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch


def read_plain(path: Path) -> Any:
    """What ``torch.save`` wrote, if it is plain data, onto the CPU; no code of the file is run.

    Raises:
        ValueError: it holds more, or is no such file. PyTorch's own message advises to run the code.
        Exception: as ``torch.load`` on a damaged file, of many types.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise ValueError("not written by torch.save") from error
        raise ValueError(
            f"it holds {found[1]}, wanted tensors and plain data alone: save the model's state_dict()"
        ) from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that ``path`` holds either its old content or all of the new, whatever happens.

    The content goes to a temporary file in the same folder, is flushed to the disk and renamed over ``path``;
    what a killed process leaves of it is overwritten by the next. A link stays one, to the new content. What is no
    file, such as a device, is written into.

    Raises:
        OSError: naming the file.
    """
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                write(file)
        else:
            _replace(path, write)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder durable, where the system lets one open a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
