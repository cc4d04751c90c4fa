"""Peak memory of a training step beside weights, gradients and momentum, in a process of its own (see `memory`).

Gradients are accumulated, as the paper's recipe does: they have their memory throughout. Where they are freed before
each step, the peak of a light body on one image comes after the loss, when all gradients have been made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.memory import ALLOCATOR, RESET_PEAK, _status
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
    if not Path("/proc/self/clear_refs").exists():
        return None
    environment = os.environ | ALLOCATOR | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [body, str(width), *map(str, size), str(classes), name]
    command = [sys.executable, "-m", "benchmarks.training_memory", *words]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    """Measures in this process and prints bytes."""
    body, width, *sides, name = sys.argv[1:]
    height, breadth, classes = map(int, sides)
    model = our_network(body, float(width), classes)
    contender = ours(model) if name == "ours" else stock(model)

    def batch(rows: int, columns: int) -> Batch:
        labels = torch.randint(classes, (1, rows, columns), dtype=torch.uint8)
        return Batch(torch.randn(1, 3, rows, columns), labels, ["noise"], [(rows, columns)])

    contender.step(batch(*SMALL))
    own = batch(height, breadth)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    for _ in range(RUNS):
        contender.step(own, accumulate=True)
    print(max(0, _status("VmHWM") - before))


if __name__ == "__main__":
    main()
