"""Stored label values to class indices."""

from __future__ import annotations

import numpy as np
import pytest

from fcnkern.data import IGNORE, DataError
from fcnkern.data.labels import label_table, plain, shifted, to_classes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_tables(dtype: type) -> None:
    stored = np.array([[0, 1, 3]], dtype)
    for table, wanted in (
        (plain(4), [0, 1, 3]),
        (plain(3, 3), [0, 1, IGNORE]),
        (shifted(3), [IGNORE, 0, 2]),
        (label_table({0: 2, 1: IGNORE, 3: 0}), [2, IGNORE, 0]),
    ):
        label = to_classes(stored, table, "x.png")
        assert label.dtype == np.uint8
        assert label.tolist() == [wanted]


@pytest.mark.parametrize(
    ("table", "stored", "message"),
    [
        (plain(3), [3, 4, 254, 0], r"3 pixels with values 3, 4, 254, wanted 0\.\.2 or 255 \(ignore\)"),
        (shifted(3), [4, 4, 0], r"2 pixels with values 4, wanted 1\.\.3 or 0 \(ignore\)"),
        (shifted(3), [-1, -300, 70000], r"3 pixels with values -300, -1, 70000, wanted 1\.\.3"),
        (label_table({0: 1, 4: 0, 5: 2}), [1, 3], r"2 pixels with values 1, 3, wanted 0, 4\.\.5$"),
    ],
)
def test_values_that_the_table_does_not_know(table: np.ndarray, stored: list[int], message: str) -> None:
    with pytest.raises(DataError, match=rf"label x\.png has {message}"):
        to_classes(np.array([stored], np.int32), table, "x.png")
