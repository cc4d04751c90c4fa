"""Metrics as text and as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fcnkern.metrics import Metrics

NAMES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iu": "mean IU",
    "fw_iu": "frequency-weighted IU",
}
BAND = "pixels to a boundary"


def metrics_line(metrics: Metrics) -> str:
    """The four metrics on one line, in per cent."""
    return ", ".join(f"{name} {100 * getattr(metrics, field):.1f} %" for field, name in NAMES.items())


def metrics_table(
    metrics: Metrics, classes: Sequence[str], bands: Mapping[int, Metrics] = MappingProxyType({})
) -> str:
    """The four metrics and the IU of each class, a line each, in per cent; - for a class that does not occur.

    bands: metrics within so many pixels of a boundary (``fcnkern.metrics.trimap``); two of each, in a table below.
    """
    width = max(map(len, (*NAMES.values(), *classes, *(BAND for _ in bands))))
    lines = [f"{name:<{width}}  {_percent(getattr(metrics, field))}" for field, name in NAMES.items()]
    rows = zip(classes, metrics.per_class_iu, strict=True)
    lines += ["", f"{'class':<{width}}  {'IU':>7}"]
    lines += [f"{name:<{width}}  {_percent(value)}" for name, value in rows]
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
    rows = zip(classes, metrics.per_class_iu, strict=True)
    record["per_class_iu"] = {name: _number(value) for name, value in rows}
    if bands:
        record["trimap"] = {str(pixels): metrics_record(near, classes) for pixels, near in bands.items()}
    return record


def _percent(value: float) -> str:
    return f"{'-':>7}" if math.isnan(value) else f"{100 * value:>5.2f} %"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
