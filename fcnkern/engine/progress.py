"""Progress shown to a person: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20.0


def say(message: str) -> None:
    """A line on standard error, above any bar. Where it can go nowhere any more, the work goes on unheard."""
    try:
        tqdm.write(message, file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Sends what is written to a stream without a reader nowhere, so that neither writing nor closing it fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Progress:
    """A tqdm bar on standard error; where that is no terminal, one line every 20 seconds. Both tell the time left.

    Args:
        what: what is being counted, as shown before the bar.
        total: how many there will be, or None where only time limits them.
        start: how many were done before.
        enabled: False shows nothing at all.
    """

    def __init__(self, what: str, total: int | None, start: int = 0, enabled: bool = True) -> None:
        self._what, self._total, self._done, self._enabled = what, total, start, enabled
        self._start, self._began = start, time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=what,
            disable=not (enabled and self._is_terminal),
            dynamic_ncols=True,
        )

    def advance(self, note: str = "") -> None:
        """Counts one more; ``note`` is shown behind the count."""
        self._done += 1
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update()
        if self._enabled and not self._is_terminal and time.monotonic() >= self._next_line:
            parts = [f"{self._what} {self._done}"]
            if self._total is not None:
                each = (time.monotonic() - self._began) / (self._done - self._start)
                left = timedelta(seconds=round(each * (self._total - self._done)))
                parts = [f"{parts[0]}/{self._total}", f"{left} left"]
            say(", ".join(filter(None, [*parts, note])))
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def say(self, message: str) -> None:
        """A line of its own, above the bar."""
        if self._enabled:
            say(message)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
