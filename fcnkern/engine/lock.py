"""One run at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Holds the folder, which is made if need be, against other processes; no file of it outlives the lock.

    A killed process holds nothing. Where the file system knows no locks, nothing is held.

    Raises:
        FileExistsError: another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    file = _taken(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _taken(path: Path) -> TextIO:
    """The open file, locked."""
    while True:
        file = path.open("a")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise FileExistsError(
                f"{path.parent} has another run in progress: wait for it, or choose another folder"
            ) from None
        except OSError:
            return file
        if fcntl is None or _is_at(path, file):
            return file
        file.close()  # its last holder has removed it in between


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
