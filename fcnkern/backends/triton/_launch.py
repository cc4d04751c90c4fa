"""How the kernels of this backend are launched: on the tensor's device, in a tuned or a pinned configuration."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.driver import driver

from fcnkern.backends._tables import is_capturing

Grid = tuple[int, ...] | Callable[[dict[str, Any]], tuple[int, ...]]

INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
"""Whether the kernels run as Python on CPU tensors (TRITON_INTERPRET=1 when this was imported)."""


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Makes the tensor's device current: Triton launches on the current stream of the current device."""
    if tensor.device.type == "cpu":
        return nullcontext()
    accelerator = torch.get_device_module(tensor.device)
    if tensor.device.index in (None, accelerator.current_device()):
        return nullcontext()
    return accelerator.device(tensor.device)


def _target() -> Any:
    """What Triton compiles for: the architecture of the current GPU."""
    return driver.active.get_current_target()


def generation() -> int | None:
    """Major compute capability of the current NVIDIA GPU, None elsewhere: what a kernel's registers depend on."""
    arch = None if INTERPRETED else _target().arch
    return arch // 10 if isinstance(arch, int) else None


@lru_cache(maxsize=16)
def multiprocessors(device: torch.device) -> int:
    """How many units of a GPU run programs on their own, by the name that its maker gives them."""
    properties: Any = torch.get_device_module(device).get_device_properties(device)
    for name in ("multi_processor_count", "gpu_subslice_count", "max_compute_units"):
        if hasattr(properties, name):
            return int(getattr(properties, name))
    return 64


def index_type(*spans: int) -> tl.dtype:
    """The type that holds indices or offsets below all ``spans``."""
    return tl.int32 if max(spans) < 1 << 31 else tl.int64


def size_class(pixels: int, *strides: Sequence[int]) -> int:
    """The calls that share a tuned configuration: pixels to a factor of 2, and which tensors have channels last.

    ``strides``: of the tensors over images, channels, rows and columns.
    """
    layouts = sum((each[1] < each[3]) << place for place, each in enumerate(strides))
    return pixels.bit_length() << 4 | layouts


_measuring = Lock()
"""Held while configurations are measured: a tuner has a state of its own, and two at once would slow each other."""


class Tuned:
    """A kernel with a short list of launch configurations, of which the first is the default.

    The fastest one is found at the first launch for each ``key`` and kept on disk with Triton's compiled kernels.
    Each architecture has a tuner of its own: Triton's would give what is the fastest on one GPU to all others.
    The default is taken, with nothing measured, where ``torch.use_deterministic_algorithms`` asks for the same
    bits on every run (another tiling may sum in another order), in the interpreter, and while a CUDA graph is
    captured before the key was ever tuned.

    ``spilling``: for places in the list, the generations of GPUs on which that configuration spills registers and
    is not offered.
    """

    def __init__(
        self,
        kernel: Any,
        configs: Sequence[triton.Config],
        key: Sequence[str],
        spilling: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.kernel, self.configs, self._key = kernel, list(configs), list(key)
        self._spilling = spilling or {}
        self._tuners: dict[str, Any] = {}
        self._chosen: dict[Hashable, triton.Config] = {}

    def offered(self) -> list[triton.Config]:
        """The configurations for the current GPU."""
        if not self._spilling:
            return self.configs
        here = generation()
        return [each for i, each in enumerate(self.configs) if here not in self._spilling.get(i, ())]

    def default(self) -> triton.Config:
        """The first of them."""
        return self.offered()[0]

    def launch(self, grid: Grid, key: Hashable, *args: Any, **meta: Any) -> None:
        """Runs the kernel on ``args``; ``key`` stands for all that a configuration may depend on."""
        if INTERPRETED or torch.are_deterministic_algorithms_enabled():
            config = self.default()
        elif key in self._chosen or is_capturing():
            config = self._chosen.get(key) or self.default()
        elif self._tunes(grid, key, args, meta):
            return
        else:
            config = self._chosen[key]
        self.kernel[grid](*args, **meta, **config.all_kwargs())

    def _tunes(self, grid: Grid, key: Hashable, args: Sequence[Any], meta: Mapping[str, Any]) -> bool:
        """Tunes the kernel and runs it, unless another thread has tuned it for ``key`` in the meantime."""
        with _measuring:
            if key in self._chosen:
                return False
            tuner = self._tuner()
            tuner[grid](*args, **meta)
            self._chosen[key] = tuner.best_config
            return True

    def _tuner(self) -> Any:
        """Triton's tuner for the current GPU's architecture."""
        target = repr(_target())
        if target not in self._tuners:
            tuned = triton.autotune(self.offered(), self._key, cache_results=True)
            self._tuners[target] = tuned(self.kernel)
        return self._tuners[target]
