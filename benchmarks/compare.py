"""What got slower since an earlier run of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import Row, read
from benchmarks.timing import Times

MARGIN = 1.05


def slower(old: Path, rows: Sequence[Row]) -> Iterator[str]:
    """A line for each of our cases that is slower than in ``old``, a report's JSON, beyond noise.

    Beyond noise: three quarters of the new calls are over 5 % slower than three quarters of the old ones, and the
    rivals of the case, which have not changed, did not slow down as much. Runs of different machines say nothing.
    """
    before = {(row.case, row.contender): row.times for row in read(old)[1] if row.times is not None}
    for row in rows:
        then = before.get((row.case, row.contender))
        if then is None or row.times is None or not row.contender.startswith("ours"):
            continue
        drift = _drift(row.case, rows, before)
        if row.times.lower > MARGIN * max(1.0, drift) * then.upper:
            change = row.times.median / then.median
            yield (
                f"SLOWER: {row.case}: {row.contender}: {then.median:.3g} ms then, {row.times.median:.3g} ms now "
                f"({change:.2f} times; the rivals {drift:.2f} times)"
            )


def _drift(case: str, rows: Sequence[Row], before: dict[tuple[str, str], Times]) -> float:
    """By how much the rivals of a case have slowed down, at least; 1 where there are none."""
    pairs = [
        (row.times, before[case, row.contender])
        for row in rows
        if row.case == case
        and row.times is not None
        and not row.contender.startswith("ours")
        and (case, row.contender) in before
    ]
    return min((now.median / then.median for now, then in pairs), default=1.0)
