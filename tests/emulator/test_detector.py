"""The emulator itself: planted faults are seen by the build that should see them, and nothing else is blamed."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from typing import NamedTuple

import pytest

from tests.emulator.build import BUILDS, detector, missing_reason
from tests.emulator.sanitizers import OPTIONS, REPORT, emulator_environment

pytestmark = pytest.mark.skipif(missing_reason() is not None, reason=missing_reason() or "")

RIGHT, WRONG = "right", "wrong"
SEEDS = range(1, 9)  # of random orders


class Outcomes(NamedTuple):
    """What each case came to, and what a sanitizer reported."""

    of: dict[str, str]
    reports: list[str]


@cache
def run(build: str, names: tuple[str, ...], fault: int, order: str = "forward", seed: int = 1) -> Outcomes:
    """Runs cases one after another in one process."""
    done = subprocess.run(
        [str(detector(build)), str(fault), *names],
        env={**emulator_environment(order, seed), **OPTIONS},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    reports = REPORT.findall(done.stderr)
    assert done.returncode == 0 or reports, done.stderr
    return Outcomes(dict(line.split(" ", 1) for line in done.stdout.splitlines()), reports)


WRONG_IN = {
    "barrier_after_write": ("forward", "random"),
    "barrier_after_tile": ("forward", "reverse", "random"),
    "trailing_barrier": ("forward", "reverse", "random"),
    "unwritten_shared": ("forward", "reverse", "random"),
    "warp_barrier": ("forward", "reverse", "random"),
    "async_copy": ("forward", "reverse", "random"),
    "async_copy_weak_wait": ("forward", "reverse", "random"),
    "plain_update": (),
    "overlapping_blocks": (),
    "shuffle_as_barrier": (),
    "last_block": (),
}
"""The orders of threads in which a fault gives wrong values; of random orders one of a few."""

DIAGNOSED = {
    "misaligned_hinted": r"thread \(\d,0,0\): misaligned 16-byte load",
    "divergent_barrier": r"divergent __syncthreads: thread 0 at .*collective\.cu:\d+, thread 16 at",
    "early_exit": r"thread 21 had exited before the __syncthreads at .*collective\.cu:\d+",
    "shuffle_in_branch": r"deadlock: thread 0 at warp collective .*; thread 16 at __syncthreads",
    "absent_lane": r"a shuffle reads lane \d+, which does not take part",
    "deadlock": r"deadlock: thread 0 at __syncthreads .*; thread 1 at warp collective",
    "two_collectives": r"warp 0: lane 0 .* and lane 1 .* wait for each other in different warp collectives",
    "trap": r"__trap\(\)",
    "many_rows": r"the CUDA kernel nothing_kernel: invalid configuration argument",
    "many_threads": r"the CUDA kernel nothing_kernel: invalid configuration argument",
    "no_threads": r"the CUDA kernel nothing_kernel: invalid configuration argument",
    "much_shared": r"the CUDA kernel nothing_kernel: invalid argument",
    "shared_not_asked_for": r"asked_kernel: invalid argument",
    "shared_with_static": r"with_static_kernel: .*: 49160 bytes of shared memory, 49152 are allowed",
}
"""What the launch says, in every order and build."""

REPORTS = {
    "address": {
        "shared_index": "index 32 out of bounds",
        "dynamic_index": "heap-buffer-overflow",
        "inner_index": "index 33 out of bounds",
        "global_index": "heap-buffer-overflow",
        "local_array": "index 4 out of bounds|insufficient space|stack-buffer-overflow",
        "misaligned": "misaligned address .* requires 16 byte alignment",
        "int_overflow": "signed integer overflow",
    },
    "thread": {
        "barrier_after_write": "data race .*block_sum",
        "barrier_after_tile": "data race .*barrier_after_tile_kernel",
        "trailing_barrier": "data race .*block_sum",
        "plain_update": "data race .*plain_update_kernel",
        "overlapping_blocks": "data race .*overlapping_blocks_kernel",
        "shuffle_as_barrier": "data race .*warp_barrier_kernel",
        "warp_barrier": "data race .*warp_barrier_kernel",
        "last_block": "data race .*last_block_kernel",
    },
}
"""What a sanitizer says."""

COMPUTED = ("votes", "atomics", "product", "positions")  # what collectives compute: no fault is planted
CASES = tuple(sorted({*WRONG_IN, *DIAGNOSED, *REPORTS["address"], *REPORTS["thread"], *COMPUTED}))
ORDERS = ("forward", "reverse", "random")


def test_every_case_is_tested() -> None:
    listed = subprocess.run([str(detector("plain"))], capture_output=True, text=True, check=True).stdout
    assert tuple(sorted(listed.split())) == CASES


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("build", BUILDS)
def test_sound_kernels_are_right_and_not_blamed(build: str, order: str) -> None:
    assert run(build, CASES, 0, order) == (dict.fromkeys(CASES, RIGHT), [])


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_absent_order_gives_wrong_values(order: str) -> None:
    expected = {name: WRONG if order in orders else RIGHT for name, orders in WRONG_IN.items()}
    assert run("plain", tuple(WRONG_IN), 1, order).of == expected


@pytest.mark.parametrize("name", WRONG_IN)
def test_random_orders_give_wrong_values(name: str) -> None:
    seen = {run("plain", tuple(WRONG_IN), 1, "random", seed).of[name] for seed in SEEDS}
    assert (WRONG in seen) == ("random" in WRONG_IN[name])
    assert seen <= {RIGHT, WRONG}


def test_a_seed_names_one_random_order() -> None:
    first, again = (
        [launched.of for launched in (function("plain", tuple(WRONG_IN), 1, "random", s) for s in SEEDS)]
        for function in (run, run.__wrapped__)
    )
    assert first == again
    assert len({outcomes["barrier_after_write"] for outcomes in first}) == 2, "all seeds order alike"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("build", ["plain", "address", "thread"])
def test_launch_tells_what_is_wrong(build: str, order: str) -> None:
    outcomes = run(build, tuple(DIAGNOSED), 1, order)
    unseen = {name: text for name, text in outcomes.of.items() if not re.search(DIAGNOSED[name], text)}
    assert unseen == {}
    assert list(outcomes.of) == list(DIAGNOSED)
    assert outcomes.reports == []


@pytest.mark.parametrize(
    ("build", "name"), [(build, name) for build, reports in REPORTS.items() for name in reports]
)
def test_sanitizer_reports(build: str, name: str) -> None:
    reports = run(build, (name,), 1).reports
    assert any(re.search(REPORTS[build][name], report) for report in reports), reports
