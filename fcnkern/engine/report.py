"""Metrics as text and as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from fcnkern.metrics import Metrics, blocks, from_confusion

NAMES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iu": "mean IU",
    "fw_iu": "frequency-weighted IU",
}
PRESENT, BAND = "mean IU, true classes", "pixels to a boundary"


class Scores(NamedTuple):
    """Metrics of a task, names of its classes, and metrics within so many pixels of a boundary by that width."""

    metrics: Metrics
    classes: list[str]
    bands: dict[int, Metrics]


def scores_by_task(
    matrices: Sequence[Tensor],
    classes: Sequence[str],
    tasks: Mapping[str, int] = MappingProxyType({}),
    widths: Sequence[int] = (),
) -> dict[str, Scores]:
    """The scores of each of several tasks by its name; of one task under the name "".

    Args:
        matrices: what ``confusions_over`` gives, of all pixels and for each of ``widths``.
        classes: of all tasks, one task's behind the other's.
        tasks: numbers of classes by name, of several tasks.
    """
    names = iter(classes)
    parts = [blocks(matrix, tasks or {"": len(classes)}) for matrix in matrices]
    scores = {}
    for task in parts[0]:
        metrics, *near = (from_confusion(part[task]) for part in parts)
        own = list(islice(names, len(metrics.per_class_iu)))
        scores[task] = Scores(metrics, own, dict(zip(widths, near, strict=True)))
    return scores


def scores_table(scores: Mapping[str, Scores]) -> str:
    """``metrics_table`` of each task, of several tasks under its name."""
    return "\n\n".join(f"{task}\n{metrics_table(*each)}".lstrip("\n") for task, each in scores.items())


def scores_record(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """``metrics_record`` of one task, or of several those of each by its name, under "tasks"."""
    records = {task: metrics_record(*each) for task, each in scores.items()}
    return records.get("", {"tasks": records})


def metrics_line(metrics: Metrics) -> str:
    """The four metrics on one line, in per cent."""
    return ", ".join(f"{name} {100 * getattr(metrics, field):.1f} %" for field, name in NAMES.items())


def metrics_table(
    metrics: Metrics, classes: Sequence[str], bands: Mapping[int, Metrics] = MappingProxyType({})
) -> str:
    """The four metrics, and IU and accuracy of each class, a line each, in per cent; - for what does not exist.

    Where a class is predicted that is never true, mean IU over the classes that are is on a line of its own.

    bands: metrics within so many pixels of a boundary (``fcnkern.metrics.trimap``); two of each, in a table below.
    """
    width = max(map(len, (*NAMES.values(), *classes, PRESENT, BAND)))
    lines = [f"{name:<{width}}  {_percent(getattr(metrics, field))}" for field, name in NAMES.items()]
    if metrics.present_mean_iu != metrics.mean_iu and not math.isnan(metrics.mean_iu):
        lines.append(f"{PRESENT:<{width}}  {_percent(metrics.present_mean_iu)}")
    rows = zip(classes, metrics.per_class_iu, metrics.per_class_accuracy, strict=True)
    lines += ["", f"{'class':<{width}}  {'IU':>7}  accuracy"]
    lines += [f"{name:<{width}}  {_percent(iu)}  {_percent(accuracy):>8}" for name, iu, accuracy in rows]
    if bands:
        lines += ["", f"{BAND:<{width}}  pixel accuracy  mean IU"]
    for pixels, near in bands.items():
        lines.append(f"{pixels:<{width}}  {_percent(near.pixel_accuracy):>14}  {_percent(near.mean_iu)}")
    return "\n".join(lines)


def metrics_record(
    metrics: Metrics, classes: Sequence[str], bands: Mapping[int, Metrics] = MappingProxyType({})
) -> dict[str, Any]:
    """The metrics as JSON takes them: fractions, None where a number does not exist; ``bands`` under "trimap"."""
    record: dict[str, Any] = {field: _number(getattr(metrics, field)) for field in NAMES}
    record["present_mean_iu"] = _number(metrics.present_mean_iu)
    for field in ("per_class_iu", "per_class_accuracy"):
        rows = zip(classes, getattr(metrics, field), strict=True)
        record[field] = {name: _number(value) for name, value in rows}
    if bands:
        record["trimap"] = {str(pixels): metrics_record(near, classes) for pixels, near in bands.items()}
    return record


def _percent(value: float) -> str:
    return f"{'-':>7}" if math.isnan(value) else f"{100 * value:>5.2f} %"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
