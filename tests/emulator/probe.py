"""Tests that test_orders.py and the tests of sanitizers start, of which some must fail: not collected by its name."""

from __future__ import annotations

import ctypes
import os

import pytest

from tests.emulator.build import detector

FAULTY = ["barrier_after_write", "global_index", "plain_update", "last_block"]

library = ctypes.CDLL(str(detector(os.environ["FCNKERN_TEST_EMULATOR"], ".so")))
library.detector_is_right.restype = ctypes.c_bool


@pytest.mark.parametrize("name", [*FAULTY, "votes", "atomics", "product", "early_exit"])
def test_sound(name: str) -> None:
    assert library.detector_is_right(name.encode(), 0)


@pytest.mark.parametrize("name", FAULTY)
def test_faulty(name: str) -> None:
    assert library.detector_is_right(name.encode(), 1)
