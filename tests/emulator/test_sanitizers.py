"""The CUDA kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.emulator.build import missing_reason
from tests.emulator.sanitizers import REPORT
from tests.emulator.suite import Run, never_launched, run_operations, run_pytest, untested

pytestmark = pytest.mark.skipif(missing_reason() is not None, reason=missing_reason() or "")

PROBE = Path(__file__).with_name("probe.py")


@pytest.mark.parametrize(("build", "name"), [("address", "global_index"), ("thread", "plain_update")])
def test_python_lets_reports_through_and_makes_none(build: str, name: str, tmp_path: Path) -> None:
    result = run_pytest(Run(build), [PROBE], f"sound or {name}", tmp_path)
    assert result.status == 66, result
    assert result.output.startswith(8 * "."), result  # what pytest prints of the sound ones
    summaries = re.findall("SUMMARY: .*", result.output)
    assert [summary.endswith(f" in {name}_kernel") for summary in summaries] == [True], result


@pytest.mark.parametrize("build", ["address", "thread"])
def test_operations(build: str, tmp_path: Path) -> None:
    result = run_operations(Run(build), tmp_path)
    assert result.status == 0, result
    assert REPORT.findall(result.output) == []
    assert untested(result) == []
    assert never_launched(result) == set()
