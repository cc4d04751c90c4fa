"""Where the tensors of a test live. A test makes CPU tensors, and calls what moves them to the device of its backend
and brings the results, and in the backward the gradients, back to the CPU, where the truth is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isfunction
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

import fcnkern
from fcnkern.backends.select import BACKENDS

ON_GPU = ("triton", "cuda")
"""The backends that run on a GPU where there is one, and on CPU tensors where there is none."""


def device_of(backend: str | None) -> str:
    """The type of device on which a backend is tested."""
    return "cuda" if backend in ON_GPU and torch.cuda.is_available() else "cpu"


def refusal(backend: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why a backend cannot be tested here, or None."""
    found = next(each for each in BACKENDS if each.name == backend).refusal(device_of(backend), dtype)
    return None if found is None else f"backend {backend}: {found}"


interpreted_only = pytest.mark.skipif(device_of("triton") != "cpu", reason="changes Triton's interpreter")


def moved(tensor: Tensor, device: str) -> Tensor:
    """A copy on another device with the same strides and alignment, through which gradients flow."""
    if tensor.numel() == 0:
        return tensor.to(device)
    places = zip(tensor.shape, tensor.stride(), strict=True)
    end = tensor.storage_offset() + 1 + sum((size - 1) * stride for size, stride in places)
    storage = tensor.as_strided((end,), (1,), 0).to(device)
    return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def placed(function: Callable[..., Any], backend: str | None = None) -> Callable[..., Any]:
    """``function`` for CPU tensors, run where ``backend``, or else that of the call, is tested."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        device = device_of(backend or options.get("backend"))
        if device == "cpu":
            return function(*args, **options)
        args, options = tree_map_only(Tensor, lambda tensor: moved(tensor, device), (args, options))
        return tree_map_only(Tensor, Tensor.cpu, function(*args, **options))

    return call


def placed_all(module: ModuleType, backend: str) -> SimpleNamespace:
    """The functions of a module of ``backend``, each for CPU tensors."""
    return SimpleNamespace(
        **{name: placed(each, backend) for name, each in vars(module).items() if isfunction(each)}
    )


confusion_matrix = placed(fcnkern.confusion_matrix)
conv1x1 = placed(fcnkern.conv1x1)
max_pool2d = placed(fcnkern.max_pool2d)
upsample_add = placed(fcnkern.upsample_add)
upsample_argmax = placed(fcnkern.upsample_argmax)
upsample_cross_entropy = placed(fcnkern.upsample_cross_entropy)


@contextmanager
def _and_the_next_call(backend: str) -> Iterator[None]:
    """On a GPU, a further call when all before it have finished."""
    yield
    if device_of(backend) != "cpu":
        torch.cuda.synchronize()
        nothing = torch.zeros(1, 1, 1, dtype=torch.uint8)
        confusion_matrix(nothing, nothing, 1, backend=backend)


@contextmanager
def raises_label_error(backend: str, message: str) -> Iterator[None]:
    """Expects the error of a label out of range: of the call itself on a CPU, of the next one on a GPU."""
    with pytest.raises(ValueError, match=message), _and_the_next_call(backend):
        yield
