"""Chart of whole images beside patches: time per score against the number of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.cases import CASES, PATCHES, Case
from benchmarks.report import Row

LINES = {
    "ours": ("whole image", "#0072B2", "o"),
    "crops, batched": ("crops, batched", "#D55E00", "s"),
    "crops, one by one": ("crops, one by one", "#009E73", "^"),
}
"""Label, colour (Okabe and Ito's) and marker of each contender."""

PAPER_SCORES = 100
PAPER = {False: 1.2 * PAPER_SCORES / 22, True: (1.2 + 2.4) * PAPER_SCORES / (22 + 37)}
"""Batched crops ÷ whole image for AlexNet and 10×10 scores in section 3.1 of the paper, on a GPU of 2014.

False: forward, 1.2 ms a crop and 22 ms in all. True: the backward pass too, 2.4 ms and 37 ms.
"""

GRIDS = {case.name: case for case in CASES if case.operation == PATCHES}


class Point(NamedTuple):
    """A contender on a grid: how many scores, and milliseconds per score."""

    scores: int
    each: float


def are_patches(rows: Sequence[Row]) -> bool:
    """Whether rows are those of patches."""
    return any(row.case in GRIDS for row in rows)


def panels(rows: Sequence[Row]) -> dict[tuple[str, bool], dict[str, list[Point]]]:
    """The points of each contender, for each body without and with gradients."""
    found: dict[tuple[str, bool], dict[str, list[Point]]] = {}
    for row in rows:
        if row.case in GRIDS and row.times is not None:
            case = GRIDS[row.case]
            lines = found.setdefault((case.body, case.gradients), {})
            lines.setdefault(row.contender, []).append(Point(scores(case), row.times.median / scores(case)))
    return found


def scores(case: Case) -> int:
    """How many scores a grid has."""
    return case.shape.size[0] * case.shape.size[1]


def draw(rows: Sequence[Row]) -> Any:
    """A panel for each body and pass, on logarithmic axes."""
    from matplotlib.figure import Figure

    found = panels(rows)
    columns = min(2, len(found))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(4.6 * columns, 0.4 + 3.2 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes, ((body, gradients), contenders) in zip(grid, found.items(), strict=False):
        for name, points in contenders.items():
            label, colour, marker = LINES[name]
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label)
        batched = dict(contenders.get("crops, batched", ()))
        if body == "AlexNet" and PAPER_SCORES in batched:
            ratio = PAPER[gradients]
            star = {"marker": "*", "s": 110, "color": "black", "zorder": 3}
            axes.scatter(
                PAPER_SCORES, batched[PAPER_SCORES] / ratio, label=f"the paper's ratio, {ratio:.1f}", **star
            )
        axes.set(xscale="log", yscale="log", xlabel="scores", ylabel="ms per score")
        axes.set_title(f"{body}, {'forward and backward' if gradients else 'forward'}", fontsize=9)
        axes.grid(which="both", color="0.9")
        axes.legend(fontsize=7)
    return figure
