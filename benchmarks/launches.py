"""Compiles the kernel that a call would launch on a GPU, with no GPU: types and constants are those of the launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction


class Launch(NamedTuple):
    """A kernel compiled for one launch, and the number of programs of that launch."""

    compiled: Any
    programs: int


class _Absent:
    """The driver of a GPU that is not there. Triton keeps what it compiles by device; each ``arch`` is one."""

    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        return self._arch

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def _default_configurations() -> Iterator[None]:
    """Launches are not tuned; tensors are not filled, as they would be for deterministic algorithms."""
    settings: Any = torch.utils.deterministic
    mode, fill = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        settings.fill_uninitialized_memory = fill


def compile_launch(call: Callable[[], object], kernel: str, arch: int) -> Launch:
    """Compiles the first ``kernel`` that ``call`` launches, in its default configuration, and runs none.

    Args:
        call: launches on CPU tensors.
        kernel: the name of the kernel.
        arch: ten times the compute capability.

    Raises:
        RuntimeError: where it does not compile.
        ValueError: where ``call`` launches no such kernel.
    """
    found: list[Launch] = []
    launched: set[str] = set()
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        launched.add(self.__name__)
        if found or self.__name__ != kernel:
            return
        sizes = grid(dict(zip(self.arg_names, args, strict=False)) | options) if callable(grid) else grid
        try:
            found.append(Launch(run(self, *args, grid=grid, warmup=True, **options), prod(sizes)))
        except Exception as error:
            raise RuntimeError(f"{kernel} does not compile for sm_{arch}") from error

    active = driver._active  # asking for it would look for a GPU
    driver.set_active(_Absent(arch))
    try:
        with _default_configurations(), mock.patch.object(JITFunction, "run", compile_only):
            call()
    finally:
        driver.set_active(active)
    if not found:
        raise ValueError(f"no launch of {kernel} among those of {', '.join(sorted(launched)) or 'none'}")
    return found[0]
