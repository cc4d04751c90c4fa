"""Which backend takes a call: one ordered list, each entry with the reason why it may not."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern import _native

OLDEST_TRITON = (3, 6)


class Backend(NamedTuple):
    """A way to run the operations. ``missing`` says why it cannot be used at all, or None."""

    name: str
    devices: Callable[[], tuple[str, ...] | None]
    missing: Callable[[], str | None]
    refused: tuple[torch.dtype, ...] = ()

    def refusal(self, device_type: str, dtype: torch.dtype) -> str | None:
        """Why this backend cannot take tensors of a device type and an element type, or None."""
        devices = self.devices()
        if devices is not None and device_type not in devices:
            return f"it takes {' and '.join(devices)} tensors, these are {device_type} tensors"
        if dtype in self.refused:
            return f"it does not take {str(dtype).removeprefix('torch.')}"
        return self.missing()


def _interprets_triton() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def _triton_devices() -> tuple[str, ...]:
    return ("cuda", "xpu", "cpu") if _interprets_triton() else ("cuda", "xpu")


@lru_cache(maxsize=1)
def _missing_triton() -> str | None:
    try:
        import triton
    except ImportError as error:
        return f"triton cannot be imported: {error}"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST_TRITON:
        return f"triton {triton.__version__} is too old, wanted {'.'.join(map(str, OLDEST_TRITON))} or newer"
    if _interprets_triton() or torch.cuda.is_available() or torch.xpu.is_available():
        return None
    return "no GPU that PyTorch can use"


BACKENDS = (
    Backend("cpu", lambda: ("cpu",), lambda: _native.missing_reason),
    Backend("triton", _triton_devices, _missing_triton, refused=(torch.float64,)),
    Backend("reference", lambda: None, lambda: None),
)


@lru_cache(maxsize=256)
def _choose(operation: str, device_type: str, dtype: torch.dtype, requested: str | None) -> ModuleType:
    known = {backend.name: backend for backend in BACKENDS}
    if requested is not None and requested not in known:
        raise ValueError(f"backend: {requested!r} is unknown; known are {', '.join(known)}")
    candidates = BACKENDS if requested is None else (known[requested],)
    refusals = {backend.name: backend.refusal(device_type, dtype) for backend in candidates}
    for name, refusal in refusals.items():
        if refusal is None:
            return importlib.import_module(f"fcnkern.backends.{name}.{operation}")
    reasons = "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
    raise RuntimeError(f"no backend for {operation} on {device_type} tensors: {reasons}")


def implementation(operation: str, tensor: Tensor, requested: str | None) -> ModuleType:
    """The module that runs ``operation`` on tensors like ``tensor``, its first argument.

    ``requested``, or else the environment variable FCNKERN_BACKEND, forces a backend.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: the forced backend cannot take the call; the message gives its reason.
    """
    forced = requested or os.environ.get("FCNKERN_BACKEND") or None
    return _choose(operation, tensor.device.type, tensor.dtype, forced)
