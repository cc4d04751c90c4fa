"""What got slower since an earlier run of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import is_foreign
from benchmarks.report import Row, read
from benchmarks.timing import Times

MARGIN = 1.05
MACHINE = ("device", "gpu", "processor", "cores", "threads", "isa")
"""The circumstances under which times can be compared."""


Report = tuple[dict[str, Any], list[Row]]


def earlier(path: Path) -> Report:
    """The circumstances and the rows of an earlier run.

    Raises:
        ValueError: the file is missing or no report.
    """
    try:
        return read(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no report of the benchmarks: {type(error).__name__}: {error}") from None


def compared(before: Report, facts: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """What there is to say of a run beside an earlier one."""
    yield from differences(before[0], facts)
    yield from slower(before[1], rows)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """A line for each of the circumstances by which times say nothing of the code."""
    for key in MACHINE:
        if then.get(key) != now.get(key):
            yield f"ANOTHER MACHINE: {key}: {then.get(key)} then, {now.get(key)} now"


def slower(old: Sequence[Row], rows: Sequence[Row]) -> Iterator[str]:
    """A line for each of our rows that is slower than in an earlier run, beyond noise.

    Beyond noise: three quarters of the new calls are over 5 % slower than three quarters of the old ones, and the
    foreign rivals of the case, which have not changed, did not slow down as much.
    """
    before = {(row.case, row.contender): row.times for row in old if row.times is not None}
    for row in rows:
        then = before.get((row.case, row.contender))
        if then is None or row.times is None or is_foreign(row.contender):
            continue
        drift = _drift(row.case, rows, before)
        if row.times.lower > MARGIN * max(1.0, drift or 1.0) * then.upper:
            change = row.times.median / then.median
            rivals = "no rival to compare with" if drift is None else f"the rivals {drift:.2f} times"
            yield (
                f"SLOWER: {row.case}: {row.contender}: {then.median:.3g} ms then, {row.times.median:.3g} ms now "
                f"({change:.2f} times; {rivals})"
            )


def _drift(case: str, rows: Sequence[Row], before: Mapping[tuple[str, str], Times]) -> float | None:
    """By how much the foreign rivals of a case have slowed down, at least; None where there are none."""
    pairs = [
        (row.times, before[case, row.contender])
        for row in rows
        if row.case == case
        and row.times is not None
        and is_foreign(row.contender)
        and (case, row.contender) in before
    ]
    return min((now.median / then.median for now, then in pairs), default=None)
