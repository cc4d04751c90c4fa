"""Runs the cases: ``python -m benchmarks [--quick] [--device cuda] [--only TEXT] [--out PATH]``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # the current folder: a checkout does not hide an installed fcnkern

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import fcnkern
from benchmarks.bounds import Work, ceilings, shared_work
from benchmarks.cases import NETWORKS, Case, chosen
from benchmarks.compare import slower
from benchmarks.contenders import Contender, build, everyone
from benchmarks.kernel_time import kernel_share
from benchmarks.memory import extra_bytes
from benchmarks.peers import missing_peers
from benchmarks.report import Row, as_json, as_markdown, circumstances
from benchmarks.timing import interleaved, timer

QUICK_SECONDS, FULL_SECONDS = 2.0, 3.0  # of timing per case


def measure(case: Case, device: str, quick: bool, seconds: float) -> Iterator[Row]:
    """Checks every contender of a case, times them in turn, then measures memory (on the CPU quick: only ours).

    ``seconds``: about how long to take times.

    Raises:
        AssertionError: a result is out of bounds. A contender that fails otherwise is a row that says so.
    """
    names = everyone(case, device, quick)
    contenders, errors, failures = _checked(build(case, names, device))
    times = interleaved({name: c.run for name, c in contenders.items()}, seconds, timer(device, case.cold))
    for name in names:
        if name in failures:
            yield Row.failed(case.name, name, failures[name])
            continue
        weighed = not case.apart and (not quick or device != "cpu" or name == "ours")
        extra = extra_bytes(case, name, device, contenders[name]) if weighed else None
        ratio = times[name].median / times["ours"].median if "ours" in times else None
        row = Row(case.name, name, times[name], ratio, case.rivals.get(name), extra, errors[name])
        if name == "ours" and device == "cpu" and not case.cold and case.operation not in NETWORKS:
            row = row._replace(kernel=kernel_share(contenders[name].run) * times[name].median)
        yield row


def _checked(
    contenders: dict[str, Contender],
) -> tuple[dict[str, Contender], dict[str, float], dict[str, str]]:
    """The contenders that run, their errors, and what the others failed with."""
    errors: dict[str, float] = {}
    failures: dict[str, str] = {}
    for name, contender in contenders.items():
        try:
            errors[name] = contender.error()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return {name: contenders[name] for name in errors}, errors, failures


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="the main cases, without torch.compile: a minute")
    add("--device", choices=["cpu", "cuda"], help="where to measure; a GPU where there is one")
    add("--large", action="store_true", help="on a CPU also the cases that take minutes or gigabytes there")
    add("--only", action="append", metavar="TEXT", help="only cases whose name holds TEXT; may be repeated")
    add("--seconds", type=float, metavar="S", help="of timing per case; 3, with --quick 2")
    add("--out", type=Path, metavar="PATH", help="write PATH.json and PATH.md")
    add("--plot", type=Path, metavar="PATH.png", help="draw time and memory (needs matplotlib)")
    add("--compare", type=Path, metavar="OLD.json", help="say what got slower since, beyond noise")
    found = parser.parse_args()
    found.device = found.device or ("cuda" if torch.cuda.is_available() else "cpu")
    found.seconds = found.seconds or (QUICK_SECONDS if found.quick else FULL_SECONDS)
    return found


def main() -> int:
    given = options()
    missing = fcnkern.info()["backends"]["cpu"]["reason"]
    if given.device == "cpu" and missing:
        sys.exit(f"the C++ kernels are missing: {missing}")
    try:
        found = [chosen(given.device, given.quick, text, given.large) for text in given.only or [""]]
    except ValueError as error:
        sys.exit(f"--only: {error}")
    cases = list({case.name: case for each in found for case in each}.values())
    can = ceilings(given.device)
    facts = circumstances(" ".join(["python -m benchmarks", *sys.argv[1:]]), given.device, can)
    facts["missing rivals"] = missing_peers()
    rows: list[Row] = []
    needs: dict[tuple[str, str], Work | None] = {}
    wrong: list[str] = []
    for index, case in enumerate(cases, start=1):
        try:
            for row in measure(case, given.device, given.quick, given.seconds):
                rows.append(row)
                needs[row.case, row.contender] = shared_work(case, row.contender)
                print(f"{index}/{len(cases)} {row}", flush=True)
        except AssertionError as error:
            wrong.append(f"{case.name}: {error}")
            print(f"{index}/{len(cases)} {wrong[-1]}", flush=True)
        can = can.best(ceilings(given.device))
        facts["ceilings"] = can._asdict()
        rows = [row.bounded(can, needs[row.case, row.contender]) for row in rows]
        if given.out is not None:
            write(given.out, facts, rows)
    print("\n" + as_markdown(facts, rows))
    for line in slower(given.compare, rows) if given.compare else []:
        print(line)
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    if given.plot is not None:
        from benchmarks.plot import plot

        plot(rows, facts, given.plot)
    return 1 if wrong else 0


def write(out: Path, facts: dict[str, Any], rows: list[Row]) -> None:
    """Writes OUT.json and OUT.md; after each case, so that a run that is ended leaves what it had."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(as_json(facts, rows))
    out.with_suffix(".md").write_text(as_markdown(facts, rows))


if __name__ == "__main__":
    sys.exit(main())
