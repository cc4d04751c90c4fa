"""A contender: something that runs, with the truth that its result must match before its time counts."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import LOSS, Case
from benchmarks.peers import cross_entropies
from fcnkern.backends.select import BACKENDS

Result = tuple[Tensor, ...]
FLOAT_BOUNDS = {torch.float32: 5e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}  # relative, in the norm
COUNT_BOUND = 1e-4  # part of the labels or counts: near ties fall differently in fp32
BF16_SUM_BOUND = 5e-2  # of a gradient that a GPU sums in bf16, some 200 terms a score
BF16_COUNT_BOUND = 2e-2  # the same in bf16, which rounds interpolated scores to ties

OWN = (
    "ours",
    "all pixels",
    "trunk alone",
    "head alone",
    "plain",
    "rarefied",
    "shift-and-stitch",
    "stride 32",
    "crops",
)
"""What contenders that run this library's code are called, up to a comma; all others are foreign."""


def is_foreign(contender: str) -> bool:
    """Whether a contender runs none of this library's code, so that no change of it changes its time."""
    return contender.split(", ")[0] not in OWN


class WrongResultError(Exception):
    """A contender computes something else than the truth."""


@dataclass(frozen=True)
class Contender:
    """``run`` is what is timed; ``truth`` gives what it should, by the reference backend in fp64.

    ``bound``: the largest error allowed in floats; None: that of the result's type. ``part``: of labels or counts.
    """

    run: Callable[[], Result]
    truth: Callable[[], Result]
    bound: float | None = None
    part: float = COUNT_BOUND

    def error(self) -> float:
        """The largest error of the results: relative in the norm for floats, part that differs for whole numbers.

        Raises:
            WrongResultError: it is out of bounds.
        """
        pairs = zip(self.run(), self.truth(), strict=True)
        return max(_error(result, truth, self.bound, self.part) for result, truth in pairs)


def _error(result: Tensor, truth: Tensor, given: float | None, part: float) -> float:
    if result.shape != truth.shape:
        raise WrongResultError(f"result is {tuple(result.shape)}, truth {tuple(truth.shape)}")
    difference = result.double() - truth.double()
    if truth.is_floating_point():
        error = float(difference.norm() / truth.double().norm())
        bound = FLOAT_BOUNDS[result.dtype] if given is None else given
    else:
        error, bound = float(_part_that_differs(difference, truth)), part
    if not error <= bound:  # NaN is wrong too
        raise WrongResultError(f"result is off by {error:.2g}, more than {bound:.2g}")
    return error


def _part_that_differs(difference: Tensor, truth: Tensor) -> Tensor:
    """Of the pixels: of N×H×W labels, or of those counted in a C×C matrix, where one that moves changes two cells."""
    if truth.dim() == 2:
        return difference.abs().sum() / 2 / truth.sum()
    return difference.count_nonzero() / truth.numel()


def build(case: Case, names: list[str], device: str = "cpu") -> dict[str, Contender]:
    """The named contenders of a case, on the same input on a device, drawn from a fixed seed.

    "ours, BACKEND" is "ours" with that backend in force. Convolutions in fp32 do not round to TF32, as a GPU's would.
    """
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    if any(name.startswith("compiled") for name in names):
        torch.compiler.reset()
    module = importlib.import_module(f"benchmarks.bench_{case.operation}")
    with torch.device(device):
        contenders: dict[str, Contender] = module.contenders(case)
    return {name: contenders[name] if name in contenders else _forced(contenders, name) for name in names}


def _forced(contenders: dict[str, Contender], name: str) -> Contender:
    """The contender "ours, BACKEND"."""
    own, _, backend = name.partition(", ")

    def run() -> Result:
        before = os.environ.get("FCNKERN_BACKEND")
        os.environ["FCNKERN_BACKEND"] = backend
        try:
            return contenders[own].run()
        finally:
            os.environ.pop("FCNKERN_BACKEND")
            if before is not None:
                os.environ["FCNKERN_BACKEND"] = before

    return Contender(run, contenders[own].truth, contenders[own].bound, contenders[own].part)


def everyone(case: Case, device: str, quick: bool = False) -> list[str]:
    """The names of all contenders of a case on a device.

    "ours", the case's rivals, "ours, BACKEND" for each backend where there are several to choose from, and the other
    libraries that are here.
    """
    able = [b.name for b in BACKENDS if b.name != "reference" and b.refusal(device, torch.float32) is None]
    own = [f"ours, {name}" for name in able] if len(able) > 1 else []
    return [*case.contenders(quick), *own, *(cross_entropies(device) if case.operation == LOSS else ())]


def draw_scores(case: Case) -> Tensor:
    """N×C×h×w scores as of a network that has learned something."""
    return (3 * torch.randn(case.images, case.shape.classes, *case.shape.size)).to(case.dtype)


def draw_labels(case: Case) -> Tensor:
    """N×H×W labels, one in C+1 of them 255."""
    height, width = case.shape.out
    classes = case.shape.classes
    side = 20 if case.labels == "patches" else 1
    coarse = torch.randint(0, classes + 1, (case.images, -(-height // side), -(-width // side)))
    labels = coarse.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :height, :width]
    return labels.masked_fill(labels == classes, 255).to(case.label_type).contiguous()


def in_channels_last(tensor: Tensor) -> Tensor:
    """The same N×C×H×W values in that layout."""
    return tensor.contiguous(memory_format=torch.channels_last)


Making = Callable[[Callable[..., Tensor]], Callable[..., Tensor]]


def as_it_is(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For a contender that is not compiled."""
    return function


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
