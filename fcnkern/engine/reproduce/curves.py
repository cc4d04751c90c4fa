"""Loss curves: read from logs, smoothed, written and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnkern._files import write_atomically
from fcnkern.engine.log import read_log
from fcnkern.engine.progress import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's, told apart by colour-blind eyes."""
STYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Curve:
    """The training of one network, an entry an iteration in which a pixel counted.

    Attributes:
        label: its name in the legend.
        images: per iteration.
        iteration, seconds: where it stood; the seconds are those of training, without the validation at its end.
        loss: mean over the pixels that counted.
    """

    label: str
    images: int
    iteration: list[int]
    seconds: list[float]
    loss: list[float]

    def smooth(self, window: int) -> list[float]:
        """Means of the last ``window`` losses; of those there are, at the beginning."""
        means = []
        for end in range(1, len(self.loss) + 1):
            part = self.loss[max(0, end - window) : end]
            means.append(sum(part) / len(part))
        return means


def read_curve(log: Path, label: str, images: int) -> Curve:
    """The curve in the log of a run that processes so many images an iteration.

    Iterations in which no pixel counted, whose loss is 0, are left out: their mean says nothing.

    Raises:
        ValueError: there are no others.
    """
    rows = [row for row in read_log(log) if row["split"] == "train" and float(row["pixel_loss"]) > 0]
    if not rows:
        raise ValueError(
            f"no iteration in {log} has a pixel that counts: take larger images or a smaller cell"
        )
    return Curve(
        label,
        images,
        [int(row["iteration"]) for row in rows],
        [float(row["elapsed"]) for row in rows],
        [float(row["pixel_loss"]) for row in rows],
    )


def figure_of(size: tuple[float, float], path: Path) -> Figure | None:
    """An empty figure, or None where matplotlib is missing, after saying what to do to get ``path``."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        say(f"{path} is not drawn, matplotlib is missing: pip install 'fcnkern[plot]', then the same command")
        return None
    return Figure(figsize=size, layout="constrained", facecolor="white")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, all or nothing."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))


def draw_losses(
    axes: Any, abscissae: Sequence[Sequence[float]], curves: Sequence[Curve], window: int
) -> None:
    """Draws each curve, faint as it was logged and clear as it is smoothed."""
    top = max(max(curve.smooth(window)[window - 1 :], default=0.0) for curve in curves)
    for number, (x, curve) in enumerate(zip(abscissae, curves, strict=True)):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
        axes.plot(x, curve.loss, color=colour, alpha=0.15, linewidth=0.6)
        axes.plot(x, curve.smooth(window), style, color=colour, linewidth=1.6, label=curve.label)
    axes.set_ylim(0, 1.3 * top if top else None)
    axes.set_ylabel("training loss, mean over pixels")
    axes.grid(color="0.9")
