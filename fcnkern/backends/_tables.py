"""Small tables that are made on the host once and then kept on the device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import TypeVar

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
    """

    def decorate(make: Callable[[Key, torch.device], Table]) -> Callable[[Key, torch.device], Table]:
        recent = lru_cache(maxsize=most)(make)
        captured: dict[tuple[Key, torch.device], Table] = {}

        @wraps(make)
        def table(key: Key, device: torch.device) -> Table:
            found = captured.get((key, device))
            if found is None:
                found = recent(key, device)
                if device.type == "cuda" and is_capturing():
                    captured[key, device] = found
            return found

        return table

    return decorate


def to_device(values: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values on a device, without waiting for it.

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
    return table.pin_memory().to(device, non_blocking=True)
