"""Ending a long run politely: signals ask, the loop stops between two iterations."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fcnkern.engine.distributed import count
from fcnkern.engine.progress import Progress

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # not on Windows: the terminal, or the connection to it, is gone
    SIGNALS.append(signal.SIGHUP)


class StoppedError(Exception):
    """A signal asked for the end of what was being done.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Stoppable(Progress):
    """Progress that is not shown, of work that a signal ends: ``advance`` raises ``StoppedError`` then."""

    def __init__(self, stop: Callable[[], int]) -> None:
        super().__init__("", None, enabled=False)
        self._stop = stop

    def advance(self, note: str = "") -> None:
        """Counts one more."""
        super().advance(note)
        if number := self._stop():
            raise StoppedError(number)


@contextmanager
def stop_requested() -> Iterator[Callable[[], int]]:
    """Yields a function that returns a signal of ``SIGNALS`` once that has come, and 0 until then.

    The first signal only asks; a second Ctrl-C (SIGINT) interrupts at once, others change nothing: what shuts a
    machine down may repeat itself. So may torchrun: of several processes, no Ctrl-C interrupts at once. Signals that
    the process was started to ignore (nohup) stay ignored. Outside the main thread, where Python allows no handlers,
    nothing is caught.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def ask(signum: int, frame: FrameType | None) -> None:
        if received and signum == signal.SIGINT and count() == 1:
            raise KeyboardInterrupt
        received.append(signum)

    heeded = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
