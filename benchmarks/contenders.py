"""A contender: something that runs, with the truth that its result must match before its time counts."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import Case

Result = tuple[Tensor, ...]
FLOAT_BOUND = 5e-6  # relative, in the norm; fp32 against fp64
COUNT_BOUND = 1e-4  # part of the labels or counts: near ties fall differently in fp32


@dataclass(frozen=True)
class Contender:
    """``run`` is what is timed; ``truth`` gives what it should, by the reference backend in fp64."""

    run: Callable[[], Result]
    truth: Callable[[], Result]

    def error(self) -> float:
        """The largest error of the results: relative in the norm for floats, part that differs for whole numbers.

        Raises:
            AssertionError: it is out of bounds.
        """
        pairs = zip(self.run(), self.truth(), strict=True)
        return max(_error(result, truth) for result, truth in pairs)


def _error(result: Tensor, truth: Tensor) -> float:
    assert result.shape == truth.shape, f"result is {tuple(result.shape)}, truth {tuple(truth.shape)}"
    difference = result.double() - truth.double()
    if truth.is_floating_point():
        error, bound = float(difference.norm() / truth.double().norm()), FLOAT_BOUND
    else:
        scale = result.sum() if truth.dim() == 2 else truth.numel()
        error, bound = float(difference.count_nonzero() / scale), COUNT_BOUND
    assert error <= bound, f"result is off by {error:.2g}, more than {bound:.2g}"
    return error


def build(case: Case, names: list[str]) -> dict[str, Contender]:
    """The named contenders of a case, on the same input, drawn from a fixed seed."""
    torch.manual_seed(0)
    if any(name.startswith("compiled") for name in names):
        torch.compiler.reset()
    contenders: dict[str, Contender] = importlib.import_module(
        f"benchmarks.bench_{case.operation}"
    ).contenders(case)
    return {name: contenders[name] for name in names}


def draw_scores(case: Case) -> Tensor:
    """1×C×h×w scores as of a network that has learned something."""
    return 3 * torch.randn(1, case.shape.classes, *case.shape.size)


def draw_labels(case: Case) -> Tensor:
    """1×H×W int64 labels, one in C+1 of them 255."""
    height, width = case.shape.out
    classes = case.shape.classes
    side = 20 if case.labels == "patches" else 1
    coarse = torch.randint(0, classes + 1, (1, -(-height // side), -(-width // side)))
    labels = coarse.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :height, :width]
    return labels.masked_fill(labels == classes, 255).contiguous()


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.compile(function)``, made at the first call: importing the compiler takes seconds."""

    @functools.cache
    def made() -> Callable[..., Tensor]:
        return torch.compile(function, dynamic=False)

    return lambda *tensors: made()(*tensors)


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], Result]:
    """Runs ``function`` on the inputs, then its backward: the value and the gradient of each input."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]

    def run() -> Result:
        value = function(*leaves)
        upstream = None if value.dim() == 0 else torch.ones_like(value)
        return value.detach(), *torch.autograd.grad(value, leaves, upstream)

    return run
