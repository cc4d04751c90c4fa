"""Times of several calls taken in turn, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

WARM_UP = 2
MIN_ROUNDS = 7
MAX_ROUNDS = 200
MAX_BURST = 50  # a quick call runs as long as the slowest, so that it too finds its own caches


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


def elapsed(call: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Times]:
    """Calls each in turn, round after round, for about ``seconds`` in all."""
    warm = {name: min(elapsed(call) for _ in range(WARM_UP)) for name, call in calls.items()}
    slowest = max(warm.values())
    bursts = {name: min(MAX_BURST, int(slowest / own)) for name, own in warm.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    for done in range(MAX_ROUNDS):
        if done >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
        for name, call in calls.items():
            taken[name] += [elapsed(call) for _ in range(bursts[name])]
    return {name: Times.of(times) for name, times in taken.items()}
