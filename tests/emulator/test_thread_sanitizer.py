"""The CUDA kernels under ThreadSanitizer, whose build takes half a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator.build import missing_reason
from tests.emulator.suite import Run, assert_one_report, assert_operations_silent

pytestmark = pytest.mark.skipif(missing_reason() is not None, reason=missing_reason() or "")


def test_python_lets_reports_through_and_makes_none(tmp_path: Path) -> None:
    assert_one_report(Run("thread"), "plain_update", tmp_path)


def test_operations(tmp_path: Path) -> None:
    assert_operations_silent(Run("thread"), tmp_path)
