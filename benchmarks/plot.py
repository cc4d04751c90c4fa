"""Charts of a report: how many times the rivals' time and memory are ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito's, told apart by colour-blind eyes
BAR = 0.8
LEAST_BYTES = 1e4  # less than this is noise of the allocator


def plot(rows: Sequence[Row], facts: dict[str, Any], path: Path) -> None:
    """Draws time and peak extra memory, rival ÷ ours, on logarithmic axes; one group of bars per case."""
    from matplotlib.figure import Figure

    cases = [row.case for row in rows if row.contender == "ours" and row.times is not None]
    figure = Figure(figsize=(11, 1 + 0.42 * len(cases)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, title, ratios in (
        (left, "time", _times(rows)),
        (right, "peak extra memory", _memories(rows)),
    ):
        for index, case in enumerate(cases):
            bars = ratios.get(case, [])
            for number, (name, ratio) in enumerate(bars):
                height = BAR / len(bars)
                position = index - BAR / 2 + height * (number + 0.5)
                axes.barh(position, ratio, height, color=COLOURS[number % len(COLOURS)])
                axes.annotate(f" {name} {ratio:.3g}×", (ratio, position), va="center", fontsize=6)
        axes.set_xscale("log")
        axes.axvline(1, color="0.3", linewidth=0.8)
        axes.margins(x=0.35)
        axes.set_title(f"{title}: plain PyTorch ÷ fcnkern", fontsize=9)
        axes.tick_params(labelsize=7)
    left.set_yticks(range(len(cases)), cases)
    left.invert_yaxis()
    machine = facts.get("gpu", facts["processor"])
    figure.suptitle(f"{machine}, torch {facts['torch']}, {facts['date']}", fontsize=9)
    figure.savefig(path, dpi=130)


def _times(rows: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if not row.contender.startswith("ours") and row.ratio is not None:
            found.setdefault(row.case, []).append((row.contender, row.ratio))
    return found


def _memories(rows: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    ours = {row.case: max(LEAST_BYTES, row.extra) for row in rows if row.contender == "ours" and row.extra}
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if not row.contender.startswith("ours") and row.extra and row.case in ours:
            found.setdefault(row.case, []).append((row.contender, row.extra / ours[row.case]))
    return found
