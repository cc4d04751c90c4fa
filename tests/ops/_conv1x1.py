"""Problems of conv1x1, and their results in fp64, for the tests of one backend's kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fcnkern.backends.reference import conv1x1 as reference

ALL = (True, True, True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 5e-7, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def poison_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launchers allocate is NaN until a kernel writes it."""

    def poison(tensor: Tensor) -> Tensor:
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    for module, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        allocate = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _f=allocate, **k: poison(_f(*a, **k)))


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, layout: str = "nchw") -> list[Tensor]:
    """Features, weight, bias and gradient of N, C, O, H, W; ``layout`` is that of features and gradient."""
    n, c, o, h, w = shape
    rng = torch.Generator().manual_seed(sum(shape))
    x, grad = (torch.randn(n, k, h + 3, w + 5, generator=rng).to(dtype) for k in (c, o))
    weight = (torch.randn(o, c, 1, 1, generator=rng) * c**-0.5).to(dtype)
    bias = torch.randn(o, generator=rng).to(dtype)
    x, grad = (_arranged(t, h, w, layout) for t in (x, grad))
    return [x, weight.to(DEVICE), bias.to(DEVICE), grad]


def _arranged(tensor: Tensor, h: int, w: int, layout: str) -> Tensor:
    if layout == "window":
        return tensor.to(DEVICE)[:, :, 2 : 2 + h, 1 : 1 + w]
    dense = tensor[:, :, :h, :w].contiguous().to(DEVICE)
    return dense.contiguous(memory_format=torch.channels_last) if layout == "nhwc" else dense


def error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm().clamp_min(1e-30))


def results_of(
    forward: Callable[..., Tensor],
    backward: Callable[..., tuple[Tensor, ...]],
    args: list[Tensor],
    relu: bool,
    p: float,
    seed: Tensor | None,
) -> list[Tensor]:
    """Output and gradients of a backend's two functions."""
    x, weight, bias, grad = args
    out = forward(x, weight, bias, relu, p, seed)
    return [out, *backward(grad, x, weight, out if relu else None, relu, p, seed, ALL)]


def exact_results(args: list[Tensor], relu: bool, p: float, seed: Tensor | None, out: Tensor) -> list[Tensor]:
    x, weight, bias, grad = (t.double() for t in args)
    exact = reference.conv1x1_fwd(x, weight, bias, relu, p, seed)
    rounded = out.double() if relu else None  # which outputs are 0 is decided in the storage type
    return [exact, *reference.conv1x1_bwd(grad, x, weight, rounded, relu, p, seed, ALL)]
