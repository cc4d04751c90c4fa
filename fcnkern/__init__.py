"""Kernels for dense prediction on PyTorch, and the fully convolutional networks built on them."""

from __future__ import annotations

from fcnkern._info import format_info, info
from fcnkern._version import __version__

__all__ = ["__version__", "format_info", "info"]
