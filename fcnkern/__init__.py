"""Kernels for dense prediction on PyTorch, and the fully convolutional networks built on them."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from fcnkern import functional, metrics, models, nn, weights
from fcnkern._info import format_info, info
from fcnkern._version import __version__
from fcnkern.functional import (
    confusion_matrix,
    conv1x1,
    max_pool2d,
    upsample_add,
    upsample_argmax,
    upsample_cross_entropy,
)
from fcnkern.models import VGG16, FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from fcnkern.resample import Resample
from fcnkern.sampling import Sampling

__all__ = [
    "VGG16",
    "FCN8s",
    "FCN8sAtOnce",
    "FCN16s",
    "FCN32s",
    "Resample",
    "Sampling",
    "__version__",
    "confusion_matrix",
    "conv1x1",
    "format_info",
    "functional",
    "info",
    "max_pool2d",
    "metrics",
    "models",
    "nn",
    "upsample_add",
    "upsample_argmax",
    "upsample_cross_entropy",
    "weights",
]

_LATE = ("data", "engine", "export")
"""Modules that an import of the package leaves out, as kernels and networks need none of them."""


if TYPE_CHECKING:  # a checker that saw __getattr__ would take any name for a module
    from fcnkern import data as data
    from fcnkern import engine as engine
    from fcnkern import export as export
else:

    def __getattr__(name: str) -> ModuleType:
        if name in _LATE:
            return importlib.import_module(f"fcnkern.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
