"""How much of a call runs in the C++ kernels: the rest is Python, PyTorch's autograd and the checks of arguments."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from fcnkern._native import extension

SECONDS, MOST_CALLS = 0.3, 200
NOT_KERNELS = {"build_info", "use_isa", "philox4x32", "poison_scratch"}


def kernel_share(call: Callable[[], Any]) -> float:
    """What part of a call lies between the entries and returns of ``fcnkern._C``: the median of many calls.

    A part, as it is the same in a busy moment of the machine as in a quiet one.
    """
    spent = 0.0

    def timed(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            nonlocal spent
            start = time.perf_counter()
            result = kernel(*args)
            spent += time.perf_counter() - start
            return result

        return run

    kernels = {
        name: each for name, each in vars(extension).items() if callable(each) and name not in NOT_KERNELS
    }
    shares: list[float] = []
    begin = time.perf_counter()
    replaced: dict[str, Any] = {name: timed(each) for name, each in kernels.items()}
    with patch.multiple(extension, **replaced):
        while not shares or (len(shares) < MOST_CALLS and time.perf_counter() - begin < SECONDS):
            spent = 0.0
            start = time.perf_counter()
            call()
            shares.append(spent / (time.perf_counter() - start))
    return statistics.median(shares)
