"""Charts of a report: how many times the rivals' time and memory are ours, and a roofline; a grid's times."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks import plot_patches
from benchmarks.bounds import POLYNOMIAL, Ceilings
from benchmarks.cases import OPERATION
from benchmarks.contenders import is_foreign
from benchmarks.report import Row, as_json

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # Okabe and Ito's, told apart by colour-blind eyes
MARKERS = "os^Dv*P"
BAR, GAP, INCHES_A_BAR, ROOF_INCHES = 0.9, 0.7, 0.13, 3.5
ROOM = 60  # times the longest bar, for its label
DPI, SHADES, SOURCE = 100, 64, "Source"
LEAST_BYTES = 1e4  # less than this is noise of the allocator


def plot(rows: Sequence[Row], facts: dict[str, Any], path: Path) -> None:
    """Draws a report as PNG, of patches as lines and of anything else as bars; a text in it is `digest`'s."""
    figure = plot_patches.draw(rows) if plot_patches.are_patches(rows) else _bars(rows, facts)
    machine = facts.get("gpu", facts["processor"])
    figure.suptitle(f"{machine}, torch {facts['torch']}, {facts['date']}", fontsize=9)
    drawn, text = io.BytesIO(), PngInfo()
    figure.savefig(drawn, dpi=DPI, facecolor="white")
    text.add_text(SOURCE, digest(rows, facts))
    image = Image.open(drawn).convert("RGB").quantize(SHADES)
    image.save(path, "PNG", pnginfo=text, optimize=True)


def digest(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    """Tells which report a chart was drawn from."""
    return hashlib.sha256(as_json(facts, rows).encode()).hexdigest()


def _bars(rows: Sequence[Row], facts: dict[str, Any]) -> Any:
    """Time and peak extra memory, rival ÷ ours, one group of logarithmic bars per case; below, the roofline."""
    from matplotlib.figure import Figure

    times, memories = _times(rows), _memories(rows)
    starts, end = {}, 0.0
    for case, bars in times.items():
        starts[case] = end
        end += len(bars) + GAP
    bars_high = 1 + INCHES_A_BAR * end
    figure = Figure(figsize=(11, bars_high + ROOF_INCHES), layout="constrained")
    places = figure.subplot_mosaic(
        [["left", "right"], ["roof", "roof"]], height_ratios=[bars_high, ROOF_INCHES]
    )
    left, right = places["left"], places["right"]
    right.sharey(left)
    right.tick_params(labelleft=False)
    names = dict.fromkeys(name for bars in times.values() for name, _ in bars)
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    for axes, title, ratios in ((left, "time", times), (right, "peak extra memory", memories)):
        for case, bars in ratios.items():
            for number, (name, ratio) in enumerate(bars):
                position = starts[case] + number
                axes.barh(position, ratio, BAR, color=colours[name])
                axes.annotate(f" {name} {_short(ratio)}×", (ratio, position), va="center", fontsize=6)
        axes.set_xscale("log")
        axes.set_xlim(right=ROOM * axes.get_xlim()[1])
        axes.axvline(1, color="0.3", linewidth=0.8)
        axes.set_title(f"{title}: plain PyTorch ÷ fcnkern", fontsize=9)
        axes.tick_params(labelsize=7)
    left.set_yticks([starts[case] + (len(bars) - 1) / 2 for case, bars in times.items()], list(times))
    left.set_ylim(end, -1)
    _roofline(places["roof"], rows, facts)
    return figure


def _roofline(axes: Any, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Flops per second of ours against flops per byte, both of what a case needs at least, under the ceilings."""
    can = Ceilings.of(facts)
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.contender != "ours" or row.times is None or row.work is None:
            continue
        flops = row.work.flops + (POLYNOMIAL * row.work.exponentials if can.exponentials is None else 0)
        if flops > 0:
            point = (flops / row.work.bytes, flops / row.times.median / 1e6)
            points.setdefault(OPERATION.get(row.case, "other"), []).append(point)
    for number, (name, each) in enumerate(points.items()):
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(
            *zip(*each, strict=True), marker, color=COLOURS[number % len(COLOURS)], markersize=5, label=name
        )
    ends = [intensity for each in points.values() for intensity, _ in each] or [1.0]
    sides = [min(ends) / 2, can.flops / can.bytes, 2 * max(ends)]
    axes.plot(sides, [min(can.flops, can.bytes * side) / 1e9 for side in sides], color="0.3", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="flops per byte", ylabel="Gflop/s")
    axes.set_title("roofline: ours, under the bytes of a copy and the flops of a product", fontsize=9)
    axes.tick_params(labelsize=7)
    if points:
        axes.legend(fontsize=7)


def _short(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _times(rows: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if is_foreign(row.contender) and row.ratio is not None:
            found.setdefault(row.case, []).append((row.contender, row.ratio))
    return found


def _memories(rows: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    ours = {
        row.case: max(LEAST_BYTES, row.extra)
        for row in rows
        if row.contender == "ours" and row.extra is not None
    }
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if is_foreign(row.contender) and row.extra and row.case in ours:
            found.setdefault(row.case, []).append((row.contender, row.extra / ours[row.case]))
    return found
