"""What was measured, as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch

import fcnkern
from benchmarks.bounds import Ceilings, Work
from benchmarks.timing import Times

ROOT = Path(__file__).resolve().parents[1]


class Row(NamedTuple):
    """One contender of one case.

    Args:
        ratio: its time ÷ ours; None where ours failed.
        extra: peak bytes beside inputs and result.
        bound: the least milliseconds that the machine's ceilings allow the case.
        failure: why there is no time.
        kernel: the milliseconds of a call that its C++ kernels take.
        work: what that bound counts.
    """

    case: str
    contender: str
    times: Times | None
    ratio: float | None
    goal: float | None
    extra: int | None
    error: float | None
    bound: float | None = None
    failure: str | None = None
    kernel: float | None = None
    work: Work | None = None

    @classmethod
    def failed(cls, case: str, contender: str, failure: str) -> Row:
        return cls(case, contender, None, None, None, None, None, failure=failure)

    def bounded(self, can: Ceilings, work: Work | None) -> Row:
        """The row with its bound; None: it does other work than the case's."""
        return self._replace(bound=None if work is None else can.bound(work), work=work)

    def __str__(self) -> str:
        if self.times is None:
            return f"{self.case}: {self.contender}: {self.failure}"
        ratio = "" if self.ratio is None else f", ratio {self.ratio:.1f}"
        return f"{self.case}: {self.contender}: {self.times.median:.3g} ms{ratio}"


def circumstances(command: str, device: str = "cpu", can: Ceilings | None = None) -> dict[str, Any]:
    """Machine, versions, commit and the ceilings measured: nothing that names a person's machine."""
    facts = fcnkern.info()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    gpu = {} if device == "cpu" else {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return {
        "command": command,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "device": device,
        **gpu,
        "processor": facts["processor"],
        "cores": os.cpu_count(),
        "threads": facts["threads"],
        "isa": facts["build"]["isa"],
        "compiler": facts["build"]["compiler"],
        "system": platform.system(),
        "python": facts["python"],
        "torch": facts["torch"],
        "fcnkern": facts["fcnkern"],
        "ceilings": None if can is None else can._asdict(),
    }


def as_json(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """The circumstances and one object per row."""
    records = [
        row._asdict()
        | {name: part and part._asdict() for name, part in (("times", row.times), ("work", row.work))}
        for row in rows
    ]
    return json.dumps({"circumstances": facts, "rows": records}, indent=1) + "\n"


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The circumstances and the rows of a report's JSON."""
    report = json.loads(path.read_text())
    return report["circumstances"], [_row(record) for record in report["rows"]]


def _row(record: dict[str, Any]) -> Row:
    times, work = record["times"], record.get("work")
    return Row(**record | {"times": times and Times(**times), "work": work and Work(**work)})


def as_markdown(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """A table per case: time, spread, ratio beside its goal, memory, part of the bound."""
    lines = [
        f"`{facts['command']}` at commit {facts['commit']}, {facts['date']}",
        "",
        f"{facts['gpu'] + ', ' if 'gpu' in facts else ''}{facts['processor']}, {facts['cores']} cores, "
        f"{facts['threads']} threads, {facts['isa']}, {facts['compiler']}, Python {facts['python']}, "
        f"torch {facts['torch']}.",
        *ceiling_lines(facts),
        "Median, quartiles and best of calls taken in turn; *ratio*: median ÷ ours; *extra*: peak memory beside",
        "inputs and result; *error*: against the reference backend in fp64; *bound*: the least time that",
        "the ceilings allow the case ÷ the median (above 1 where the data were in the caches); the rates are what",
        "the case needs at least ÷ the median.",
        "",
        *table(rows),
    ]
    lines += [f"\nNot measured: {name} ({why})." for name, why in facts.get("missing rivals", {}).items()]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of a table with a line per row."""
    return [
        "| case | | ms | quartiles | best | runs | ratio | goal | extra MB | error | bound "
        "| GB/s | Gflop/s | Gexp/s |",
        f"|---|---|{12 * '---:|'}",
        *(_line(row) for row in rows),
    ]


def ceiling_lines(facts: dict[str, Any]) -> list[str]:
    if facts["ceilings"] is None:
        return []
    can = Ceilings.of(facts)
    exponentials = "" if can.exponentials is None else f", {can.exponentials / 1e9:.3g} G exponentials/s"
    return [
        f"Ceilings: a copy {can.bytes / 1e9:.3g} GB/s (read and written), "
        f"a product {can.flops / 1e12:.3g} Tflop/s{exponentials}."
    ]


def _line(row: Row) -> str:
    own = row.contender == "ours"
    names = [row.case if own else "", f"**{row.contender}**" if own else row.contender]
    if row.times is None:
        return f"| {' | '.join([*names, f'failed: {row.failure}'])} | | | | | | | | | | | |"
    times = row.times
    cells = [
        *names,
        f"{times.median:.3g}",
        f"{times.lower:.3g} to {times.upper:.3g}",
        f"{times.best:.3g}",
        str(times.runs),
        "" if own or row.ratio is None else f"{row.ratio:.1f}",
        "" if row.goal is None else f"{row.goal:g}",
        "" if row.extra is None else f"{row.extra / 1e6:.2f}",
        f"{row.error:.1e}",
        "" if row.bound is None else f"{row.bound / times.median:.2g}",
        *("" if not need else f"{need / times.median / 1e6:.3g}" for need in row.work or (0, 0, 0)),
    ]
    return f"| {' | '.join(cells)} |"
