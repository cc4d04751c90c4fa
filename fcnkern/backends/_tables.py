"""Small tables that are made on the host once and then kept on the device, for all of its streams."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)
Table = TypeVar("Table")


def is_capturing() -> bool:
    """Whether a CUDA graph is captured on the current stream."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def kept_tables(
    most: int,
) -> Callable[[Callable[[Key, torch.device], Table]], Callable[[Key, torch.device], Table]]:
    """Keeps the ``most`` tables that were used last, and for ever those that a captured CUDA graph reads.

    Such a graph knows only their addresses: it would go on reading there after the memory had been given to others.
    Of the other tables the allocator knows which streams read them, and gives their memory to nobody before that.
    """

    def decorate(make: Callable[[Key, torch.device], Table]) -> Callable[[Key, torch.device], Table]:
        @lru_cache(maxsize=most)
        def recent(key: Key, device: torch.device) -> tuple[Table, set[Any]]:
            return make(key, device), set()

        captured: dict[tuple[Key, torch.device], Table] = {}

        @wraps(make)
        def table(key: Key, device: torch.device) -> Table:
            found = captured.get((key, device))
            if found is None:
                found, readers = recent(key, device)
                if device.type == "cuda" and is_capturing():
                    captured[key, device] = found
                elif device.type != "cpu":
                    _record(found, readers, _streams(device).current_stream(device))
            return found

        return table

    return decorate


def _record(table: Any, readers: set[Any], stream: Any) -> None:
    """Tells the allocator that a stream reads the table: once, since it remembers until the memory is freed."""
    if stream in readers:
        return
    readers.add(stream)
    for part in table if isinstance(table, tuple) else (table,):
        if isinstance(part, Tensor):
            part.record_stream(stream)


def to_device(values: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values on a device, ready for any of its streams; waits for no other work there.

    Raises:
        RuntimeError: a CUDA graph is being captured, in which the copy would only be noted down.
    """
    table = torch.from_numpy(values).to(dtype)
    if device.type == "cpu":
        return table
    if is_capturing():
        raise RuntimeError(
            "a CUDA graph is being captured, and this call needs tables that no call has made yet: "
            "run it once before, with the same sizes and settings"
        )
    with _streams(device).stream(_copying_stream(device)):
        return table.to(device)  # from pageable memory: returns when the stream has copied


@lru_cache(maxsize=16)
def _copying_stream(device: torch.device) -> Any:
    return _streams(device).Stream(device)


def _streams(device: torch.device) -> Any:
    """The module with the streams of a type of device: torch.cuda, torch.xpu."""
    return torch.get_device_module(device)
