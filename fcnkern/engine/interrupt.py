"""Ending a long run politely: signals ask, the loop stops between two iterations."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requested() -> Iterator[Callable[[], int]]:
    """Yields a function that returns SIGINT (Ctrl-C) or SIGTERM once that has come, and 0 until then.

    The first signal only asks; a second Ctrl-C interrupts at once, a second SIGTERM changes nothing: what shuts a
    machine down may repeat itself. Outside the main thread, where Python allows no handlers, nothing is caught.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def ask(signum: int, frame: FrameType | None) -> None:
        if received and signum == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signum)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
