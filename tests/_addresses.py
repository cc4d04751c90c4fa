"""Addresses that a kernel touches in Triton's interpreter: outside the tensors of its launch they are errors.

A GPU's memory comes in large pieces, so that reading beyond a tensor goes unseen there until it does not. Inside is
each tensor among the kernel's arguments, from its first element to its last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from triton.runtime import interpreter

Span = tuple[int, int]
_spans: list[Span] = []


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _span(tensor: torch.Tensor) -> Span:
    """First address and end of the elements of a tensor."""
    places = zip(tensor.shape, tensor.stride(), strict=True)
    count = 1 + sum((size - 1) * stride for size, stride in places) if tensor.numel() else 0
    return tensor.data_ptr(), tensor.data_ptr() + count * tensor.element_size()


def _noting_spans(original: Any) -> Any:
    def arguments(self: Any, args: Any, options: Any) -> Any:
        result = original(self, args, options)
        _spans[:] = [_span(tensor) for tensor in _tensors((*result[0], *result[1].values()))]
        return result

    return arguments


def _check(what: str, pointers: Any, mask: Any) -> None:
    touched = np.broadcast_to(np.asarray(mask.data, bool), pointers.data.shape)
    addresses = pointers.data[touched].astype(np.int64)
    if addresses.size == 0:
        return
    first, last = int(addresses.min()), int(addresses.max())
    size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
    if any(begin <= first and last + size <= end for begin, end in _spans):
        return
    inside = [(begin <= addresses) & (addresses + size <= end) for begin, end in _spans]
    outside = int(np.count_nonzero(~np.any(inside, 0)))
    if outside:
        raise IndexError(f"{what} of {outside} addresses outside every tensor of the launch")


def _checking(original: Any, what: str, pointers: int, mask: int) -> Any:
    def access(self: Any, *operands: Any) -> Any:
        _check(what, operands[pointers], operands[mask])
        return original(self, *operands)

    return access


def watch() -> None:
    """From here on every access of an interpreted kernel is checked; one without a mask has one in here."""
    builder = interpreter.InterpreterBuilder
    executor = interpreter.GridExecutor
    executor._init_args_hst = _noting_spans(executor._init_args_hst)
    for name, what, pointers, mask in (
        ("create_masked_load", "load", 0, 1),
        ("create_masked_store", "store", 0, 2),
        ("create_atomic_rmw", "atomic addition", 1, 3),
    ):
        setattr(builder, name, _checking(getattr(builder, name), what, pointers, mask))
