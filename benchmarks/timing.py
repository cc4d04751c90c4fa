"""Times of several calls taken in turn, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

WARM_UP = 2
MIN_ROUNDS = 7
SLOW_ROUNDS = 3  # instead, where they take SLOW times the seconds given
SLOW = 2.0
MAX_ROUNDS = 2000
MAX_BURST = 50  # a quick call runs as long as the slowest, so that it too finds its own caches
FLUSHED_BYTES = 1 << 28  # several times the last cache of any GPU, and what a core of a CPU has of it


class Times(NamedTuple):
    """Milliseconds: least, median and quartiles of ``runs`` calls."""

    best: float
    median: float
    lower: float
    upper: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        lower, median, upper = (1e3 * value for value in statistics.quantiles(seconds, n=4))
        return cls(1e3 * min(seconds), median, lower, upper, len(seconds))


Timer = Callable[[Callable[[], Any]], float]
"""Takes a call and gives the seconds that it took."""


def elapsed(call: Callable[[], Any]) -> float:
    """Seconds that one call takes on the CPU, its caches as the call before left them."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class ColdTimer:
    """Seconds that one call takes on the CPU, its caches overwritten before."""

    def __init__(self) -> None:
        self._flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8)

    def __call__(self, call: Callable[[], Any]) -> float:
        self._flushed.zero_()
        return elapsed(call)


class DeviceTimer:
    """Seconds between two events on a GPU's stream, around one call that finds its caches overwritten."""

    def __init__(self, device: str) -> None:
        self._flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device=device)

    def __call__(self, call: Callable[[], Any]) -> float:
        self._flushed.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def timer(device: str, cold: bool = False) -> Timer:
    """How calls on a device are timed; ``cold``: on a CPU too with caches that were overwritten."""
    if device != "cpu":
        return DeviceTimer(device)
    return ColdTimer() if cold else elapsed


def interleaved(
    calls: Mapping[str, Callable[[], Any]], seconds: float, taking: Timer = elapsed
) -> dict[str, Times]:
    """Calls each in turn, round after round, for about ``seconds`` in all."""
    most = 1 if isinstance(taking, ColdTimer) else MAX_BURST
    warm = {name: _warm(call, seconds, taking) for name, call in calls.items()}
    slowest = max(warm.values())
    bursts = {name: max(1, min(most, int(slowest / own))) for name, own in warm.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    for done in range(MAX_ROUNDS):
        enough = seconds if done >= MIN_ROUNDS else SLOW * seconds
        if done >= SLOW_ROUNDS and time.perf_counter() - start > enough:
            break
        for name, call in calls.items():
            taken[name] += [taking(call) for _ in range(bursts[name])]
    return {name: Times.of(times) for name, times in taken.items()}


def _warm(call: Callable[[], Any], seconds: float, taking: Timer) -> float:
    """Seconds of a call that is warm: after the first, unless that is long enough to be warm by itself."""
    first = taking(call)
    if first > seconds / MIN_ROUNDS:
        return first
    return min(first, *(taking(call) for _ in range(WARM_UP - 1)))
