"""The compiled parts, ``fcnkern._C`` and ``fcnkern._C_cuda``: loads them, or keeps the reason why one is missing."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from types import ModuleType

from fcnkern._version import __version__


def _load(name: str) -> tuple[ModuleType | None, str | None]:
    """An extension module and None, or None and the reason why it is missing."""
    importlib.import_module("torch")  # first: its OpenMP runtime is then in the process and serves both
    try:
        module = importlib.import_module(f"fcnkern.{name}")
    except ImportError as error:
        return None, f"{error} (fcnkern is imported from {Path(__file__).parent})"
    built_for = module.build_info()["version"]
    if built_for != __version__:
        reason = f"fcnkern.{name} was built for fcnkern {built_for} and this is {__version__}: build it again"
        return None, reason
    return module, None


def _choose_isa(module: ModuleType, name: str) -> None:
    """Puts the instruction-set level that the user named in force."""
    try:
        module.use_isa(name)
    except ValueError as error:
        raise ValueError(f"environment variable FCNKERN_ISA: {error}") from None


extension, missing_reason = _load("_C")
cuda_extension, cuda_missing_reason = _load("_C_cuda")

if extension is None:
    warnings.warn(
        f"fcnkern's C++ kernels are missing, the slow reference backend takes their place: {missing_reason}",
        RuntimeWarning,
        stacklevel=1,
    )
elif os.environ.get("FCNKERN_ISA"):
    _choose_isa(extension, os.environ["FCNKERN_ISA"])
