"""What the package says that it holds: to a reader, and to mypy, which checks this file and names unused ignores."""

from __future__ import annotations

import pytest
import torch

import fcnkern


def test_modules_that_are_imported_late_are_listed() -> None:
    assert {*fcnkern.__all__, "data", "engine", "export"} <= set(dir(fcnkern))


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="module 'fcnkern' has no attribute 'Reample'"):
        fcnkern.Reample  # type: ignore[attr-defined]  # noqa: B018


def test_modules_that_are_imported_late_are_typed() -> None:
    with pytest.raises((AttributeError, TypeError)):
        fcnkern.data.open_dataset(1, "train")  # type: ignore[arg-type]


def test_a_size_may_be_that_of_a_tensor() -> None:
    size = torch.empty(1, 6, 8).shape[-2:]
    for kind in (fcnkern.Resample.half_pixel, fcnkern.Resample.align_corners):
        assert kind(size=size) == kind((6, 8))
    assert fcnkern.Resample.deconv(2, size=size).size == (6, 8)


def test_results_that_hang_on_a_variable_are_typed() -> None:
    scores, labels, size = torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.long), (4, 4)
    resample = fcnkern.Resample.half_pixel(size)
    for both in (False, True):
        loss = fcnkern.upsample_cross_entropy(scores, labels, resample, return_stats=both)
        found = fcnkern.upsample_argmax(scores, resample, return_confidence=both)
        assert isinstance(loss, tuple) is isinstance(found, tuple) is both
