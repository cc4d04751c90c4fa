"""Runs the cases: ``python -m benchmarks [--quick] [--only TEXT] [--out PATH]``."""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # the current folder: a checkout does not hide an installed fcnkern

import argparse
from collections.abc import Iterator
from pathlib import Path

import fcnkern
from benchmarks.cases import CASES, Case
from benchmarks.contenders import build
from benchmarks.memory import extra_bytes
from benchmarks.report import Row, as_json, as_markdown, circumstances
from benchmarks.timing import interleaved

QUICK_SECONDS, FULL_SECONDS = 2.0, 6.0  # of timing per case


def measure(case: Case, quick: bool) -> Iterator[Row]:
    """Checks every contender of a case, times them in turn, then measures memory (quick: only ours)."""
    names = case.contenders(quick)
    contenders = build(case, names)
    errors = {name: contender.error() for name, contender in contenders.items()}
    seconds = QUICK_SECONDS if quick else FULL_SECONDS
    times = interleaved({name: contender.run for name, contender in contenders.items()}, seconds)
    for name in names:
        ratio = times[name].median / times["ours"].median
        extra = extra_bytes(case, name) if name == "ours" or not quick else None
        yield Row(case.name, name, times[name], ratio, case.rivals.get(name), extra, errors[name])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="the main cases, without torch.compile: a minute"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name holds TEXT")
    parser.add_argument("--out", type=Path, metavar="PATH", help="write PATH.json and PATH.md")
    options = parser.parse_args()
    missing = fcnkern.info()["backends"]["cpu"]["reason"]
    if missing:
        sys.exit(f"the C++ kernels are missing: {missing}")
    chosen = [case for case in CASES if options.only in case.name and (case.quick or not options.quick)]
    if not chosen:
        sys.exit(f"--only: no case holds {options.only!r}; there are: {'; '.join(map(str, CASES))}")
    rows = []
    for case in chosen:
        for row in measure(case, options.quick):
            rows.append(row)
            print(
                f"{row.case}: {row.contender}: {row.times.median:.3g} ms, ratio {row.ratio:.1f}", flush=True
            )
    facts = circumstances(" ".join(["python -m benchmarks", *sys.argv[1:]]))
    print("\n" + as_markdown(facts, rows))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(as_json(facts, rows))
        options.out.with_suffix(".md").write_text(as_markdown(facts, rows))


if __name__ == "__main__":
    main()
