"""The CUDA kernels with their threads in other orders than the one in which the other tests run them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulator.build import missing_reason
from tests.emulator.suite import PROBE, Run, never_launched, run_operations, run_pytest, untested

pytestmark = pytest.mark.skipif(missing_reason() is not None, reason=missing_reason() or "")


def test_order_reaches_the_kernels(tmp_path: Path) -> None:
    forward, backward = (
        run_pytest(Run("plain", order), [PROBE], "barrier_after_write or sound", tmp_path)
        for order in ("forward", "reverse")
    )
    assert (forward.status, backward.status) == (1, 0), f"{forward}\n{backward}"
    assert "test_faulty[barrier_after_write]" in forward.output
    assert backward.passed["probe"] == 9
    assert "votes_kernel" in backward.launched


def test_nothing_selected_is_a_failure(tmp_path: Path) -> None:
    result = run_pytest(Run("plain"), [PROBE], "no_such_test", tmp_path)
    assert (result.status, sum(result.passed.values())) == (5, 0)


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_operations(order: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    seed = random.SystemRandom().randrange(1, 2**31)
    print(f"CUEMU_ORDER={order} CUEMU_SEED={seed}")
    record_property("CUEMU_SEED", seed)
    result = run_operations(Run("plain", order, seed), tmp_path)
    assert result.status == 0, result
    assert untested(result) == []
    assert never_launched(result) == set()
