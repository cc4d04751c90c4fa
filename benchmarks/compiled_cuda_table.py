"""The tables of the CUDA kernels' machine code, and of their work beside that of Triton's kernels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.compiled_table import CEILINGS, Row, short, time_table
from benchmarks.cubins import nvcc_release
from benchmarks.occupancy import MOST_WARPS, resident_warps
from benchmarks.specimen import TABLE_ARCH

_TRITON = Path(__file__).parent / "results" / "compiled.json"
_HALF_TYPES = ("__half", "__nv_bfloat16", "Bits16")
_NOTABLE = 1.25


class CodeRow(NamedTuple):
    """An instantiation of a kernel for one architecture. ``warps``: that a multiprocessor holds at once."""

    operation: str
    kernel: str
    arch: int
    facts: dict[str, Any]
    warps: int


class WorkRow(NamedTuple):
    """The work of a specimen, with its kernel, resident warps, and the Triton specimens that do the same."""

    row: Row
    kernel: str
    warps: int
    triton: tuple[str, ...]


class TritonWork(NamedTuple):
    """What Triton's kernels issue for the work of a row together; registers and resident warps of the worst."""

    kernels: int
    registers: int
    warps: int
    row: Row


def circumstances() -> dict[str, Any]:
    """What the tables depend on beside the code."""
    return {
        "command": "python -m benchmarks.compiled_cuda --write",
        "nvcc": nvcc_release(),
        "triton": version("triton"),
        "ceilings": CEILINGS,
    }


def as_json(code: Sequence[CodeRow], work: Sequence[WorkRow]) -> str:
    """The circumstances, one object per instantiation and architecture, one per specimen."""
    rows = [row._asdict() for row in code]
    counted = [
        {**row._asdict(), "kernel": kernel, "warps": warps, "case": vars(row.case), "seconds": row.seconds()}
        for row, kernel, warps, _ in work
    ]
    return json.dumps({"circumstances": circumstances(), "rows": rows, "work": counted}, indent=1) + "\n"


def as_markdown(code: Sequence[CodeRow], work: Sequence[WorkRow]) -> str:
    """The machine code on every architecture, the work beside Triton's, the least times, what asks for attention."""
    found = circumstances()
    per_unit = {each.kernel: each.row for each in work}
    shown = [row for row in code if row == _alike(row, code)[0]]
    lines = [
        f"`{found['command']}`, nvcc {found['nvcc']}; the disassembler of Triton {found['triton']}.",
        "",
        "**Everything here is counted in the machine code or by hand; nothing is measured.** No GPU took part.",
        "",
        "Machine code: *others*: the most registers of the same kernel for other types; *shared bytes*: static;",
        f"*warps*: that a multiprocessor holds at once, of {MOST_WARPS}, with the dynamic shared memory of the case",
        "where there is one; *static*: instructions that can run; *per unit* and *MUFU*: as in compiled.md, on",
        f"sm_{TABLE_ARCH}.",
        "",
        "| operation | kernel | sm | registers | others | shared bytes | spills | warps | static | unit | per unit |"
        " MUFU |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|",
        *(_code_line(row, code, per_unit.get(row.kernel)) for row in shown),
        "",
        f"The same work by Triton's kernels (compiled.md), both on sm_{TABLE_ARCH}; where several of these do it,",
        "the sum of their instructions and the registers and warps of the worst.",
        "",
        "| operation | work | unit | registers | warps | per unit | MUFU | issue µs | bound | Triton kernels |"
        " registers | warps | per unit | MUFU | issue µs | CUDA ÷ Triton |",
        "|---|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
        *(_work_line(each) for each in work),
        "",
        *time_table([each.row for each in work]),
        "",
        "What asks for attention: instructions that take longer to issue than everything else takes, or are more",
        f"than {_NOTABLE} times as many as Triton's.",
        "",
        *attention(work),
    ]
    return "\n".join(lines) + "\n"


def attention(work: Sequence[WorkRow]) -> list[str]:
    """A line for each kernel that issues too much."""
    lines = []
    for each in sorted(work, key=lambda each: -each.row.seconds()["issue"]):
        said = []
        if (ratio := each.row.issue_by_others()) > 1:
            said.append(f"issue takes {short(ratio)} times the longest of the other times")
        if each.triton and (more := _by_triton(each)) > _NOTABLE:
            said.append(f"{short(more)} times the instructions of Triton")
        if said:
            lines.append(f"- `{each.kernel}`, {each.row.name}: {'; '.join(said)}.")
    return lines


def triton_work(work: WorkRow) -> TritonWork:
    """What Triton's kernels issue for the same work.

    Raises:
        ValueError: where the table of Triton's kernels has not one row of a name.
    """
    rows = [row for row in json.loads(_TRITON.read_text())["rows"] if row["arch"] == TABLE_ARCH]
    found = [row for name in work.triton for row in rows if row["name"] == name]
    if len(found) != len(work.triton):
        raise ValueError(f"{_TRITON.name} has {len(found)} rows of {', '.join(work.triton)}")
    facts = [row["facts"] for row in found]
    warps = [
        resident_warps(TABLE_ARCH, fact["registers"], 32 * fact["warps"], fact["shared"]) for fact in facts
    ]
    total = {kind: sum(row["issued"][kind] for row in found) for kind in ("total", "mufu")}
    row = work.row._replace(issued=total)
    return TritonWork(len(found), max(fact["registers"] for fact in facts), min(warps), row)


def _by_triton(work: WorkRow) -> float:
    return work.row.seconds()["issue"] / triton_work(work).row.seconds()["issue"]


def _alike(row: CodeRow, code: Sequence[CodeRow]) -> list[CodeRow]:
    """The same kernel for every type on the same architecture, the one that the table shows first."""
    kin = [r for r in code if r.arch == row.arch and _for_float(r.kernel) == _for_float(row.kernel)]
    return sorted(kin, key=lambda r: [kind in r.kernel for kind in _HALF_TYPES])


def _for_float(kernel: str) -> str:
    return re.sub("|".join(_HALF_TYPES), "float", kernel)


def _code_line(row: CodeRow, code: Sequence[CodeRow], counted: Row | None) -> str:
    facts = row.facts
    others = [other.facts["registers"] for other in _alike(row, code)[1:]]
    cells = [row.operation, f"`{row.kernel}`", row.arch, facts["registers"], max(others, default="")]
    cells += [facts["shared"], facts["spills"], row.warps, facts["instructions"]]
    if counted is None or row.arch != TABLE_ARCH:
        cells += ["", "", ""]
    else:
        cells += [counted.case.unit, *(short(counted.per_unit(kind)) for kind in ("total", "mufu"))]
    return f"| {' | '.join(map(str, cells))} |"


def _work_line(work: WorkRow) -> str:
    row = work.row
    cells = [
        row.operation,
        row.name,
        row.case.unit,
        row.facts["registers"],
        work.warps,
        *_counts(row),
        row.bound(),
    ]
    if work.triton:
        theirs = triton_work(work)
        cells += [
            theirs.kernels,
            theirs.registers,
            theirs.warps,
            *_counts(theirs.row),
            short(_by_triton(work)),
        ]
    else:
        cells += [""] * 7
    return f"| {' | '.join(map(str, cells))} |"


def _counts(row: Row) -> list[str]:
    return [short(row.per_unit("total")), short(row.per_unit("mufu")), short(1e6 * row.seconds()["issue"])]
