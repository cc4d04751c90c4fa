"""Which backend takes a call: one ordered list, each entry with the reason why it may not."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

from fcnkern import _native


class Backend(NamedTuple):
    """A way to run the operations. ``missing`` says why it cannot be used at all, or None."""

    name: str
    devices: tuple[str, ...] | None
    missing: Callable[[], str | None]

    def refusal(self, device_type: str) -> str | None:
        """Why this backend cannot take tensors of a device type, or None."""
        if self.devices is not None and device_type not in self.devices:
            return f"it takes {' and '.join(self.devices)} tensors, these are {device_type} tensors"
        return self.missing()


BACKENDS = (
    Backend("cpu", ("cpu",), lambda: _native.missing_reason),
    Backend("reference", None, lambda: None),
)


@lru_cache(maxsize=256)
def _choose(operation: str, device_type: str, requested: str | None) -> ModuleType:
    known = {backend.name: backend for backend in BACKENDS}
    if requested is not None and requested not in known:
        raise ValueError(f"backend: {requested!r} is unknown; known are {', '.join(known)}")
    candidates = BACKENDS if requested is None else (known[requested],)
    refusals = {backend.name: backend.refusal(device_type) for backend in candidates}
    for name, refusal in refusals.items():
        if refusal is None:
            return importlib.import_module(f"fcnkern.backends.{name}.{operation}")
    reasons = "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
    raise RuntimeError(f"no backend for {operation} on {device_type} tensors: {reasons}")


def implementation(operation: str, device_type: str, requested: str | None) -> ModuleType:
    """The module that runs ``operation`` on tensors of ``device_type``.

    ``requested``, or else the environment variable FCNKERN_BACKEND, forces a backend.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: the forced backend cannot take the call; the message gives its reason.
    """
    return _choose(operation, device_type, requested or os.environ.get("FCNKERN_BACKEND") or None)
