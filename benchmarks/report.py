"""What was measured, as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fcnkern
from benchmarks.timing import Times

ROOT = Path(__file__).resolve().parents[1]


class Row(NamedTuple):
    """One contender of one case. ``ratio``: its time ÷ ours; ``extra``: peak bytes beside inputs and result."""

    case: str
    contender: str
    times: Times
    ratio: float
    goal: float | None
    extra: int | None
    error: float


def circumstances(command: str) -> dict[str, Any]:
    """Machine, versions and commit: nothing that names a person's machine."""
    facts = fcnkern.info()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "command": command,
        "commit": commit.stdout.strip() or "unknown",
        "processor": facts["processor"],
        "cores": os.cpu_count(),
        "threads": facts["threads"],
        "isa": facts["build"]["isa"],
        "compiler": facts["build"]["compiler"],
        "system": platform.system(),
        "python": facts["python"],
        "torch": facts["torch"],
        "fcnkern": facts["fcnkern"],
    }


def as_json(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """The circumstances and one object per row."""
    records = [row._asdict() | {"times": row.times._asdict()} for row in rows]
    return json.dumps({"circumstances": facts, "rows": records}, indent=1) + "\n"


def as_markdown(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """A table per case: time, spread, ratio beside its goal, memory."""
    lines = [
        f"`{facts['command']}` at commit {facts['commit']}",
        "",
        f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, {facts['isa']}, "
        f"{facts['compiler']}, Python {facts['python']}, torch {facts['torch']}.",
        "Median, quartiles and best of calls taken in turn; *ratio*: median ÷ ours; *extra*: peak memory beside",
        "inputs and result; *error*: against the reference backend in fp64.",
        "",
        "| case | | ms | quartiles | best | runs | ratio | goal | extra MB | error |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_line(row) for row in rows]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    times = row.times
    cells = (
        row.case if row.contender == "ours" else "",
        f"**{row.contender}**" if row.contender == "ours" else row.contender,
        f"{times.median:.3g}",
        f"{times.lower:.3g} to {times.upper:.3g}",
        f"{times.best:.3g}",
        str(times.runs),
        "" if row.contender == "ours" else f"{row.ratio:.1f}",
        "" if row.goal is None else f"{row.goal:g}",
        "" if row.extra is None else f"{row.extra / 1e6:.2f}",
        f"{row.error:.1e}",
    )
    return f"| {' | '.join(cells)} |"
