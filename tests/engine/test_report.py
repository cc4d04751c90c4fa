"""Metrics as text and as JSON."""

from __future__ import annotations

import json

from fcnkern.engine import metrics_record, metrics_table
from fcnkern.metrics import from_confusion

NAMES = ["ground", "sky", "moon", "cow"]
PLAIN = from_confusion([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
WITH_A_MOON = from_confusion([[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def lines(text: str) -> dict[str, str]:
    """Numbers of each line by its first words."""
    found = {}
    for line in text.splitlines():
        name, _, numbers = line.partition("  ")
        found[name] = " ".join(numbers.split())
    return found


def test_table_of_classes() -> None:
    table = lines(metrics_table(PLAIN, NAMES))
    assert table["pixel accuracy"] == "87.50 %"
    assert table["mean IU"] == "77.50 %"
    assert table["ground"] == "75.00 % 75.00 %"
    assert table["sky"] == "80.00 % 100.00 %"
    assert table["moon"] == "- -"
    assert "mean IU, true classes" not in table


def test_a_class_that_is_never_true() -> None:
    table = lines(metrics_table(WITH_A_MOON, NAMES, {2: PLAIN}))
    assert table["mean IU"] == "58.33 %"
    assert table["mean IU, true classes"] == "87.50 %"
    assert table["moon"] == "0.00 % -"
    assert table["2"] == "87.50 % 77.50 %"


def test_record() -> None:
    record = json.loads(json.dumps(metrics_record(WITH_A_MOON, NAMES, {2: PLAIN}), allow_nan=False))
    assert record["present_mean_iu"] == 0.875
    assert record["per_class_iu"] == {"ground": 0.75, "sky": 1.0, "moon": 0.0, "cow": None}
    assert record["per_class_accuracy"] == {"ground": 0.75, "sky": 1.0, "moon": None, "cow": None}
    assert record["trimap"]["2"]["mean_iu"] == 0.775
    assert "trimap" not in record["trimap"]["2"]
