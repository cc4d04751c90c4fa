"""The training log: one CSV file, a row per iteration and a row per validation."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from fcnkern._files import write_atomically
from fcnkern.engine.progress import say

COLUMNS = (
    *("iteration", "split", "loss", "pixel_loss", "accuracy", "lr", "elapsed"),
    *("mean_accuracy", "mean_iu", "fw_iu"),
)


class CsvLog:
    """Appends rows to a CSV file; floats read back to the same bits.

    Training rows have ``loss`` (as optimised), ``pixel_loss`` (mean over the pixels that counted), ``accuracy``
    (over the same pixels), ``lr`` and ``elapsed`` (seconds); validation rows the four metrics, pixel accuracy being
    in ``accuracy``. Of several tasks those of each follow in rows of the split ``val TASK``. Rows after ``iteration``
    are dropped when the file is opened: a resumed run writes them again. So are the validation's rows at it with
    ``validates``, where that begins with a validation. A file that is no log is kept under another name.

    Raises:
        OSError: the file cannot be written, naming it. A row that cannot be is said, and left out.
    """

    def __init__(self, path: Path, iteration: int, validates: bool = False) -> None:
        def is_kept(row: dict[str, str]) -> bool:
            at = int(row["iteration"])
            return at < iteration or (at == iteration and not (validates and row["split"].startswith("val")))

        self._path, self._failed = path, False
        lines = [_line(dict.fromkeys(COLUMNS, "") | row) for row in _old_rows(path) if is_kept(row)]
        header = _line({name: name for name in COLUMNS})
        write_atomically(path, lambda file: file.writelines([header, *lines]))
        self._file: FileIO = path.open("ab", buffering=0)

    def write(self, **row: float | str) -> None:
        """Adds one row and hands it to the system at once."""
        end, line = os.fstat(self._file.fileno()).st_size, _line(row)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(end)
            if not self._failed:
                say(f"log {self._path} cannot be written, rows will be missing: {error}")
            self._failed = True

    def close(self) -> None:
        self._file.close()


def _line(row: Mapping[str, float | str]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n").writerow(row)
    return text.getvalue().encode()


def _old_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the file, if there is one; one that is no log is put aside."""
    if not path.exists():
        return []
    try:
        return read_log(path)
    except ValueError as error:
        aside = path.with_name(f"{path.name}.old")
        os.replace(path, aside)
        say(f"{error}: it is kept as {aside}, a new one begins")
        return []


def read_log(path: str | Path) -> list[dict[str, str]]:
    """The rows of a log; a last row that a kill cut short is left out.

    Raises:
        ValueError: the file is damaged, or no log.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            lines = file.read().splitlines(keepends=True)
        rows = list(csv.DictReader(line for line in lines if line.endswith("\n")))
        for row in rows:
            if not {"iteration", "split"} <= set(row) <= set(COLUMNS) or None in row.values():
                raise ValueError("other columns")
            int(row["iteration"])
    except (ValueError, csv.Error) as error:
        raise ValueError(f"log {path} is damaged or no log of fcnkern") from error
    return rows
