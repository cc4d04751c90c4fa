"""The training log: one CSV file, a row per iteration and a row per validation."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TextIO

from fcnkern._files import write_atomically

COLUMNS = (
    *("iteration", "split", "loss", "pixel_loss", "accuracy", "lr", "elapsed"),
    *("mean_accuracy", "mean_iu", "fw_iu"),
)


class CsvLog:
    """Appends rows to a CSV file; floats read back to the same bits.

    Training rows have ``loss`` (as optimised), ``pixel_loss`` (mean over the pixels that counted), ``accuracy``
    (over the same pixels), ``lr`` and ``elapsed`` (seconds); validation rows the four metrics, pixel accuracy being
    in ``accuracy``. Of several tasks those of each follow in rows of the split ``val TASK``. Rows after ``iteration``
    are dropped when the file is opened: a resumed run writes them again.
    """

    def __init__(self, path: Path, iteration: int) -> None:
        rows = [row for row in read_log(path) if int(row["iteration"]) <= iteration] if path.exists() else []
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        self._file: TextIO = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS, restval="", lineterminator="\n")

    def write(self, **row: float | str) -> None:
        """Adds one row and hands it to the system at once."""
        self._writer.writerow(row)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(path: str | Path) -> list[dict[str, str]]:
    """The rows of a log; a last row that a kill cut short is left out."""
    with Path(path).open(newline="") as file:
        lines = file.read().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    return list(csv.DictReader(complete))
