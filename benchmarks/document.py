"""Writes the measured figures into README.md and docs/performance.md: ``python -m benchmarks.document``.

Each block between ``<!-- NAME -->`` and ``<!-- /NAME -->`` is made from the reports in benchmarks/results that
`figures.Results` names, and docs/performance.png and docs/patches.png are drawn from cpu.json and patches.json.
``--check`` writes nothing and says what is not as they have it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Report, Results, blocks
from benchmarks.plot import digest, plot
from benchmarks.report import ROOT, read

RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
TEXTS = (ROOT / "README.md", DOCS / "performance.md")
BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def results() -> Results:
    """The committed measurements."""
    return Results(*(Report(*read(RESULTS / f"{name}.json")) for name in Results._fields))


def rewritten(text: str, found: Results) -> str:
    """The text with its blocks as the measurements have them.

    Raises:
        KeyError: a block of an unknown name, or a figure that was not measured; the message names it.
    """
    made = blocks(found)

    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in made:
            raise KeyError(f"unknown block {name!r}; there are: {', '.join(made)}")
        return begin + made[name]() + end

    return BLOCK.sub(block, text)


def stale(found: Results) -> list[Path]:
    """The texts and charts that are not as the measurements have them."""
    texts = [path for path in TEXTS if path.read_text() != rewritten(path.read_text(), found)]
    drawn = {path: digest(report.rows, report.facts) for report, path in _charts(found)}
    return texts + [path for path, source in drawn.items() if source.encode() not in path.read_bytes()]


def _charts(found: Results) -> Iterator[tuple[Report, Path]]:
    yield found.cpu, DOCS / "performance.png"
    yield found.patches, DOCS / "patches.png"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.document", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where something is stale")
    check, found = parser.parse_args().check, results()
    if check:
        for path in stale(found):
            print(f"STALE: {path.relative_to(ROOT)}")
        return int(bool(stale(found)))
    for path in TEXTS:
        path.write_text(rewritten(path.read_text(), found))
    for report, path in _charts(found):
        plot(report.rows, report.facts, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
