"""Structs of parameters as the CUDA extension takes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fcnkern.backends.cuda._extension import kernels


def filled(name: str, **fields: Any) -> Any:
    """A struct of the extension with these fields: a tensor stands for its address, None leaves a field empty."""
    struct = getattr(kernels, name)()
    for field, value in fields.items():
        if value is not None:
            setattr(struct, field, value.data_ptr() if isinstance(value, Tensor) else value)
    return struct
