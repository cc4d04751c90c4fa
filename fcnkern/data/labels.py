"""From the numbers that label files store to class indices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fcnkern.data.sample import IGNORE, DataError

UNKNOWN = -1


def label_table(meaning: Mapping[int, int]) -> np.ndarray:
    """A table for `to_classes`: int16, entry v the class of the stored value v, `UNKNOWN` where it has none."""
    table = np.full(max(meaning) + 1, UNKNOWN, np.int16)
    table[list(meaning)] = list(meaning.values())
    return table


def plain(classes: int, *void: int) -> np.ndarray:
    """The table of labels that are class indices already; `IGNORE` and the values `void` mean no class."""
    return label_table({k: k for k in range(classes)} | dict.fromkeys((IGNORE, *void), IGNORE))


def shifted(classes: int) -> np.ndarray:
    """The table of labels that count their classes from 1; 0 means no class."""
    return label_table({0: IGNORE} | {k + 1: k for k in range(classes)})


def to_classes(stored: np.ndarray, table: np.ndarray, path: str | Path) -> np.ndarray:
    """Class indices, uint8 of the same shape, of the stored values.

    Raises: DataError naming the values that the table does not know.
    """
    # Negative values wrap around to large ones; all that are outside the table take the entry behind it.
    classes = np.append(table, np.int16(UNKNOWN))[np.minimum(stored.astype(np.uint32), len(table))]
    bad = classes == UNKNOWN
    if bad.any():
        raise DataError(
            f"label {path} has {np.count_nonzero(bad)} pixels with values {some(stored[bad])}, "
            f"wanted {_known(table)}"
        )
    return classes.astype(np.uint8)


def some(values: np.ndarray, limit: int = 8) -> str:
    """A few of the distinct values, for messages."""
    found = np.unique(values)
    return ", ".join(str(v) for v in found[:limit]) + (", ..." if found.size > limit else "")


def _known(table: np.ndarray) -> str:
    """The stored values that stand for classes as ranges, then those that are ignored."""
    kept, ignored = np.flatnonzero((table >= 0) & (table != IGNORE)), np.flatnonzero(table == IGNORE)
    ranges = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
    words = [str(r[0]) if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in ranges if len(r)]
    return (
        f"{', '.join(words)} or {', '.join(map(str, ignored))} (ignore)" if len(ignored) else ", ".join(words)
    )
