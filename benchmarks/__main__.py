"""Runs the cases: ``python -m benchmarks [--quick] [--device cuda] [--only TEXT] [--out PATH]``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # the current folder: a checkout does not hide an installed fcnkern

import argparse
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import fcnkern
from benchmarks.bounds import Work, ceilings, shared_work
from benchmarks.cases import NETWORKS, Case, chosen
from benchmarks.command import recorded, seconds, writable, write
from benchmarks.compare import compared, earlier
from benchmarks.contenders import Contender, WrongResultError, build, everyone, is_foreign
from benchmarks.kernel_time import kernel_share
from benchmarks.memory import extra_bytes
from benchmarks.peers import unmeasured
from benchmarks.report import Row, as_json, as_markdown, circumstances
from benchmarks.timing import Timer, Times, interleaved, timer

SECONDS = 1.5  # of timing per case


def measure(case: Case, device: str, quick: bool, seconds: float) -> Iterator[Row]:
    """Checks every contender of a case, times them in turn, then measures memory (on the CPU quick: only ours).

    ``seconds``: about how long to take times.

    Raises:
        WrongResultError: a result of this library is out of bounds. A contender that fails otherwise, or one that is
            foreign and out of bounds, is a row that says so.
    """
    names = everyone(case, device, quick)
    try:
        contenders = build(case, names, device)
    except Exception as error:
        yield from (Row.failed(case.name, name, _said(error)) for name in names)
        return
    errors, failures = _checked(contenders)
    able = {name: contenders[name] for name in errors}
    times, late = _times({name: each.run for name, each in able.items()}, seconds, timer(device, case.cold))
    failures |= late
    ours = times["ours"].median if "ours" in times else None
    for name in names:
        if name in failures:
            yield Row.failed(case.name, name, failures[name])
            continue
        ratio = None if ours is None else times[name].median / ours
        row = Row(case.name, name, times[name], ratio, case.rivals.get(name), None, errors[name])
        try:
            yield _weighed(row, case, device, quick, able[name])
        except Exception as error:
            yield Row.failed(case.name, name, _said(error))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _checked(contenders: Mapping[str, Contender]) -> tuple[dict[str, float], dict[str, str]]:
    """The errors of the contenders that run, and what the others failed with."""
    errors: dict[str, float] = {}
    failures: dict[str, str] = {}
    for name, contender in contenders.items():
        try:
            errors[name] = contender.error()
        except Exception as error:
            if isinstance(error, WrongResultError) and not is_foreign(name):
                raise WrongResultError(f"{name}: {error}") from None
            failures[name] = _said(error)
    return errors, failures


def _times(
    calls: Mapping[str, Callable[[], Any]], seconds: float, take: Timer
) -> tuple[dict[str, Times], dict[str, str]]:
    """Times of the calls that last, taken anew without each that fails; and what those failed with."""
    running = ""
    failures: dict[str, str] = {}

    def named(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            nonlocal running
            running = name
            call()

        return run

    while left := {name: named(name, call) for name, call in calls.items() if name not in failures}:
        try:
            return interleaved(left, seconds, take), failures
        except Exception as error:
            failures[running] = _said(error)
    return {}, failures


def _weighed(row: Row, case: Case, device: str, quick: bool, contender: Contender) -> Row:
    """A row with the contender's memory, and for ours on a CPU the time in kernels."""
    own = row.contender == "ours"
    if not case.apart and (own or not quick or device != "cpu"):
        row = row._replace(extra=extra_bytes(case, row.contender, device, contender))
    timed = own and device == "cpu" and not case.cold and case.operation not in NETWORKS
    if timed and row.times is not None:
        row = row._replace(kernel=kernel_share(contender.run) * row.times.median)
    return row


def _complaint(row: Row) -> str | None:
    """What makes a row a failure of the whole run: a wrong result or, of our own contenders, none."""
    if row.failure is None:
        return None
    kind, _, said = row.failure.partition(": ")
    if kind == WrongResultError.__name__:
        return f"WRONG: {row.case}: {row.contender}: {said}"
    return None if is_foreign(row.contender) else f"FAILED: {row}"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="the main cases, without torch.compile: a minute")
    add("--device", choices=["cpu", "cuda"], help="where to measure; a GPU where there is one")
    add("--large", action="store_true", help="on a CPU also the cases that take minutes or gigabytes there")
    add(
        "--only",
        action="append",
        metavar="TEXT",
        help="only cases whose name holds TEXT; may be repeated, and orders them",
    )
    add("--seconds", type=seconds, metavar="S", default=SECONDS, help="of timing per case; %(default)g")
    add("--out", type=writable, metavar="PATH", help="write PATH.json and PATH.md")
    add("--plot", type=writable, metavar="PATH.png", help="draw time and memory (needs matplotlib)")
    add("--compare", type=Path, metavar="OLD.json", help="say what got slower since, beyond noise")
    found = parser.parse_args()
    if found.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: PyTorch finds no GPU here, wanted cpu")
    if found.plot is not None and find_spec("matplotlib") is None:
        parser.error("argument --plot: matplotlib is not installed: pip install matplotlib")
    found.device = found.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return found


def wanted(given: argparse.Namespace) -> list[Case]:
    """The cases to measure, in the order of the --only that name them.

    Raises:
        ValueError: one names none.
    """
    found = [chosen(given.device, given.quick, text, given.large) for text in given.only or [""]]
    return list({case.name: case for each in found for case in each}.values())


def main() -> int:
    given = options()
    missing = fcnkern.info()["backends"]["cpu"]["reason"]
    if given.device == "cpu" and missing:
        sys.exit(f"the C++ kernels are missing: {missing}")
    try:
        cases = wanted(given)
    except ValueError as error:
        sys.exit(f"--only: {error}")
    try:
        before = earlier(given.compare) if given.compare else None
    except ValueError as error:
        sys.exit(f"--compare: {error}")
    can = ceilings(given.device)
    facts = circumstances(recorded("benchmarks", sys.argv[1:]), given.device, can)
    facts["missing rivals"] = unmeasured(given.device)
    rows: list[Row] = []
    needs: dict[tuple[str, str], Work | None] = {}
    complaints: list[str] = []
    for index, case in enumerate(cases, start=1):
        try:
            for row in measure(case, given.device, given.quick, given.seconds):
                rows.append(row)
                if complaint := _complaint(row):
                    complaints.append(complaint)
                needs[row.case, row.contender] = shared_work(case, row.contender)
                print(f"{index}/{len(cases)} {row}", flush=True)
        except WrongResultError as error:
            complaints.append(f"WRONG: {case.name}: {error}")
            print(f"{index}/{len(cases)} {case.name}: {error}", flush=True)
        can = can.best(ceilings(given.device))
        facts["ceilings"] = can._asdict()
        rows = [row.bounded(can, needs[row.case, row.contender]) for row in rows]
        if given.out is not None:
            # A run that is ended leaves what it had.
            write(given.out, as_json(facts, rows), as_markdown(facts, rows))
    print("\n" + as_markdown(facts, rows))
    for line in compared(before, facts, rows) if before else ():
        print(line)
    for line in complaints:
        print(line, file=sys.stderr)
    if given.plot is not None:
        from benchmarks.plot import plot

        plot(rows, facts, given.plot)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
