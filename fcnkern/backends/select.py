"""Which backend takes a call: one ordered list, each entry with the reason why it may not."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern import _native

OLDEST_TRITON = (3, 6)
OLDEST_FOR_TRITON = (8, 0)
"""The least compute capability of an NVIDIA GPU for the Triton kernels: older ones have no arithmetic in bf16."""


class Backend(NamedTuple):
    """A way to run the operations.

    ``missing`` says why it cannot be used at all, ``uncovered`` why it cannot on one device, or None.
    """

    name: str
    devices: Callable[[], tuple[str, ...] | None]
    missing: Callable[[], str | None]
    refused: tuple[torch.dtype, ...] = ()
    uncovered: Callable[[torch.device], str | None] = lambda device: None

    def refusal(self, device: torch.device | str, dtype: torch.dtype) -> str | None:
        """Why this backend cannot take tensors of a device and an element type, or None."""
        device, devices = torch.device(device), self.devices()
        if devices is not None and device.type not in devices:
            return f"it takes {' and '.join(devices)} tensors, these are {device.type} tensors"
        if dtype in self.refused:
            return f"it does not take {str(dtype).removeprefix('torch.')}"
        return self.missing() or self.uncovered(device)


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
    if _interprets_triton() or torch.xpu.is_available():
        return None
    if not torch.cuda.is_available():
        return "no GPU that PyTorch can use"
    uncovered = [_uncovered_by_triton(torch.device("cuda", i)) for i in range(torch.cuda.device_count())]
    return uncovered[0] if all(uncovered) else None


@lru_cache(maxsize=16)
def _uncovered_by_triton(device: torch.device) -> str | None:
    """Why the Triton kernels cannot be compiled for a device; of GPUs that are not NVIDIA's all are taken."""
    if device.type != "cuda" or torch.version.hip is not None or _interprets_triton():
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= OLDEST_FOR_TRITON:
        return None
    wanted, found = (".".join(map(str, each)) for each in (OLDEST_FOR_TRITON, capability))
    return f"it takes GPUs of compute capability {wanted} or newer, {device} has {found}"


def _emulates_cuda() -> bool:
    extension = _native.cuda_extension
    return extension is not None and extension.build_info()["emulated"]


def _cuda_devices() -> tuple[str, ...]:
    return ("cpu",) if _emulates_cuda() else ("cuda",)


@lru_cache(maxsize=1)
def _missing_cuda() -> str | None:
    if _native.cuda_extension is None or _emulates_cuda():
        return _native.cuda_missing_reason
    count, reason = _native.cuda_extension.device_count()
    return None if count else reason


@lru_cache(maxsize=16)
def _uncovered_by_cuda(device: torch.device) -> str | None:
    """Why the CUDA kernels cannot run on a device; where they cannot, says so once."""
    if device.type == "cpu" or _native.cuda_extension is None:
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    refusal: str | None = _native.cuda_extension.device_refusal(index)
    if refusal is not None:
        archs = _native.cuda_extension.build_info()["archs"]
        refusal = f"built for compute capabilities {archs}, and not for that of device {index}: {refusal}"
        warnings.warn(f"fcnkern's CUDA kernels are {refusal}", RuntimeWarning, stacklevel=2)
    return refusal


# Triton comes first of the two for NVIDIA GPUs until measurements tell another order.
BACKENDS = (
    Backend("cpu", lambda: ("cpu",), lambda: _native.missing_reason),
    Backend("triton", _triton_devices, _missing_triton, (torch.float64,), _uncovered_by_triton),
    Backend("cuda", _cuda_devices, _missing_cuda, (torch.float64,), _uncovered_by_cuda),
    Backend("reference", lambda: None, lambda: None),
)


@lru_cache(maxsize=256)
def _choose(operation: str, device: torch.device, dtype: torch.dtype, requested: str | None) -> ModuleType:
    known = {backend.name: backend for backend in BACKENDS}
    if requested is not None and requested not in known:
        raise ValueError(f"backend: {requested!r} is unknown; known are {', '.join(known)}")
    candidates = BACKENDS if requested is None else (known[requested],)
    reasons = []
    for backend in candidates:
        refusal = backend.refusal(device, dtype)
        if refusal is None:
            return importlib.import_module(f"fcnkern.backends.{backend.name}.{operation}")
        reasons.append(f"{backend.name}: {refusal}")
    raise RuntimeError(f"no backend for {operation} on {device.type} tensors: {'; '.join(reasons)}")


def implementation(operation: str, tensor: Tensor, requested: str | None) -> ModuleType:
    """The module that runs ``operation`` on tensors like ``tensor``, its first argument.

    ``requested``, or else the environment variable FCNKERN_BACKEND, forces a backend.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: the forced backend cannot take the call; the message gives its reason.
    """
    forced = requested or os.environ.get("FCNKERN_BACKEND") or None
    return _choose(operation, tensor.device, tensor.dtype, forced)
