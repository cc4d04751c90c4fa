"""The table of the compiled specimens, and the time that the ceilings of an H200 would allow each case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from benchmarks.specimen import TABLE_ARCH, Case

_CLOCK, _PROCESSORS = 1.8e9, 132
CEILINGS = {
    "DRAM": 4.3e12,  # bytes/s of a copy
    "tensor": 790e12,  # flop/s in bf16
    "MUFU": _PROCESSORS * 16 * _CLOCK,  # exponentials/s
    "issue": _PROCESSORS * 4 * _CLOCK,  # instructions/s, of a warp each
}
"""What an H200 does at most per second."""


class Row(NamedTuple):
    """One specimen for one architecture. ``issued``: what the launch issues, None where it was not counted."""

    operation: str
    name: str
    arch: int
    facts: dict[str, Any]
    issued: dict[str, float] | None
    case: Case

    def per_unit(self, kind: str) -> float | None:
        """Instructions per unit of work and thread, all (``"total"``) or to one pipe (``"mufu"``)."""
        return None if self.issued is None else 32 * self.issued[kind] / self.case.units

    def bound(self) -> str:
        """What takes longest."""
        seconds = self.seconds()
        return max(seconds, key=seconds.__getitem__)

    def issue_by_others(self) -> float:
        """The time to issue the instructions ÷ the longest of the other times; infinite where nothing else is."""
        seconds = self.seconds()
        others = max(seconds[name] for name in seconds if name != "issue")
        return seconds["issue"] / others if others else float("inf")

    def seconds(self) -> dict[str, float]:
        """The least time of the case by each ceiling."""
        case, issued = self.case, self.issued or {"total": 0.0, "mufu": 0.0}
        counts = {
            "DRAM": case.bytes,
            "tensor": case.flops,
            "MUFU": max(case.exponentials, 32 * issued["mufu"]),
            "issue": issued["total"],
        }
        return {name: count / CEILINGS[name] for name, count in counts.items()}


def circumstances() -> dict[str, Any]:
    """What the table depends on beside the code."""
    return {
        "command": "python -m benchmarks.compiled --write",
        "triton": version("triton"),
        "ceilings": CEILINGS,
    }


def as_json(rows: Sequence[Row]) -> str:
    """The circumstances and one object per row."""
    records = [_record(row) for row in rows]
    return json.dumps({"circumstances": circumstances(), "rows": records}, indent=1) + "\n"


def _record(row: Row) -> dict[str, Any]:
    times = {"seconds": row.seconds()} if row.arch == TABLE_ARCH else {}
    return row._asdict() | {"case": vars(row.case)} | times


def as_markdown(rows: Sequence[Row]) -> str:
    """A table of the machine code on every architecture, and one of the times that the ceilings allow."""
    lines = [
        f"`{circumstances()['command']}`, Triton {version('triton')}.",
        "",
        "**Everything here is counted in the machine code or by hand; nothing is measured.** No GPU took part.",
        "",
        "Machine code: *static*: instructions that can run; *per unit*: instructions of a thread per unit of work",
        "with the loops run as often as in the case, and those of them for the special-function unit (*MUFU*).",
        "",
        "| operation | kernel | sm | registers | shared bytes | spills | static | unit | per unit | MUFU |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---:|",
        *(_code_line(row) for row in rows),
        "",
        *time_table([row for row in rows if row.arch == TABLE_ARCH]),
    ]
    return "\n".join(lines) + "\n"


def time_table(rows: Sequence[Row]) -> list[str]:
    """The lines of a table of the least times of cases."""
    return [
        _ceilings(),
        "*Bound*: the largest of them. *issue ÷ others*: the time to issue the instructions ÷ the largest of the",
        "other three: below 1 the instructions could hide behind it.",
        "",
        "| operation | kernel | case | MB | Gflop | M exp | DRAM µs | tensor µs | MUFU µs | issue µs | bound |"
        " issue ÷ others |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|",
        *(_time_line(row) for row in rows),
    ]


def _ceilings() -> str:
    return (
        f"The least time of a case on an H200, by its ceilings: a copy at {CEILINGS['DRAM'] / 1e12:g} TB/s (*DRAM*), "
        f"{CEILINGS['tensor'] / 1e12:g} Tflop/s in bf16\n(*tensor*), {_PROCESSORS} × 16 exponentials (*MUFU*) and "
        f"{_PROCESSORS} × 4 instructions of a warp (*issue*) per clock at {_CLOCK / 1e9:g} GHz.\n"
        "*MB*, *Gflop*, *M exp*: what the case must move and compute, counted by hand (millions of exponentials)."
    )


def _code_line(row: Row) -> str:
    facts = row.facts
    cells = [row.operation, row.name, row.arch, facts["registers"], facts["shared"], facts["spills"]]
    cells += [facts["instructions"], row.case.unit]
    cells += [short(row.per_unit(kind)) for kind in ("total", "mufu")]
    return f"| {' | '.join(map(str, cells))} |"


def _time_line(row: Row) -> str:
    case, seconds = row.case, row.seconds()
    ratio = row.issue_by_others()
    amounts = [case.bytes / 1e6, case.flops / 1e9, case.exponentials / 1e6]
    cells = [row.operation, row.name, case.name, *map(short, amounts)]
    cells += [short(1e6 * time) for time in seconds.values()]
    cells += [row.bound(), "" if ratio == float("inf") else short(ratio)]
    return f"| {' | '.join(cells)} |"


def short(value: float | None) -> str:
    """Three digits of a number, nothing of none and of 0."""
    return "" if not value else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
