"""Peak memory of a training step beside weights, gradients and momentum, in a process of its own (see `memory`).

Gradients are accumulated, as the paper's recipe does: they have their memory throughout. Where they are freed before
each step, the peak of a light body on one image comes after the loss, when all gradients have been made.
"""

from __future__ import annotations

import torch

from benchmarks.memory import fork, growth
from benchmarks.training_step import our_network, ours, stock
from fcnkern.data import Batch

FLOAT = 4
RUNS = 2
SMALL = (64, 64)  # pixels of a first step, after which momentum and gradients have their memory


def full_resolution_bytes(size: tuple[int, ...], classes: int) -> int:
    """Bytes of the floats at the labels' resolution that are alive at once in a stock step, at the loss.

    Three maps of scores: the log-softmax, its gradient and that of the scores. Others live before and after.
    """
    return 3 * FLOAT * classes * size[0] * size[1]


def peak_bytes(body: str, width: float, size: tuple[int, ...], classes: int, name: str) -> int | None:
    """Peak of a step; None where the system does not tell."""
    return fork(_in_this_process, body, width, size, classes, name)


def _in_this_process(body: str, width: float, size: tuple[int, ...], classes: int, name: str) -> int:
    model = our_network(body, width, classes)
    contender = ours(model) if name == "ours" else stock(model)

    def batch(rows: int, columns: int) -> Batch:
        labels = torch.randint(classes, (1, rows, columns), dtype=torch.uint8)
        return Batch(torch.randn(1, 3, rows, columns), labels, ["noise"], [(rows, columns)])

    contender.step(batch(*SMALL))
    own = batch(*size)
    return max(0, growth(lambda: contender.step(own, accumulate=True), RUNS)[0])
