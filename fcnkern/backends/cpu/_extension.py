"""The compiled extension, which this backend cannot do without."""

from __future__ import annotations

from types import ModuleType

from fcnkern._native import extension, missing_reason

if extension is None:
    raise ImportError(missing_reason)

kernels: ModuleType = extension
