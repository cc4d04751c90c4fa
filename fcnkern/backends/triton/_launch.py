"""How the kernels of this backend are launched: on the tensor's device, in a tuned or a pinned configuration."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
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


def generation() -> int | None:
    """Major compute capability of the current NVIDIA GPU, None elsewhere: what a kernel's registers depend on."""
    arch = None if INTERPRETED else driver.active.get_current_target().arch
    return arch // 10 if isinstance(arch, int) else None


def size_class(pixels: int, *strides: Sequence[int]) -> int:
    """The calls that share a tuned configuration: pixels to a factor of 2, and which tensors have channels last.

    ``strides``: of the tensors over images, channels, rows and columns.
    """
    layouts = sum((each[1] < each[3]) << place for place, each in enumerate(strides))
    return pixels.bit_length() << 4 | layouts


class Tuned:
    """A kernel with a short list of launch configurations, of which the first is the default.

    The fastest one is found at the first launch for each ``key`` and kept on disk with Triton's compiled kernels.
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
        self.kernel, self.configs, self._spilling = kernel, list(configs), spilling or {}
        prune = {"early_config_prune": lambda *args, **kwargs: self.offered()}
        self._tuner = triton.autotune(self.configs, list(key), prune_configs_by=prune, cache_results=True)(
            kernel
        )
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
        if not INTERPRETED and not torch.are_deterministic_algorithms_enabled():
            if key not in self._chosen and not is_capturing():
                self._tuner[grid](*args, **meta)
                self._chosen[key] = self._tuner.best_config
                return
            config = self._chosen.get(key) or self.default()
        else:
            config = self.default()
        self.kernel[grid](*args, **meta, **config.all_kwargs())
