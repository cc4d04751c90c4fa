"""Peak memory of a training step beside weights, gradients and momentum, in a process of its own (`memory`)."""

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


def full_resolution_bytes(body: str, size: tuple[int, ...], classes: int) -> int:
    """Bytes of the floats at the labels' resolution that are alive at once in a stock step, at the loss.

    The upsampled scores before the crop, those after it, their log-softmax and its gradient.
    """
    model = our_network(body, 0.05, classes)
    with torch.no_grad():
        scores, _ = model.scores(torch.zeros(1, 3, *size))
    height, width = ((side + 1) * model.final_stride for side in scores.shape[2:])
    if model.alignment.final.kernel % 2:
        height, width = height - 1, width - 1
    return FLOAT * classes * (height * width + 3 * size[0] * size[1])


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
        contender.step(own)
    print(max(0, _status("VmHWM") - before))


if __name__ == "__main__":
    main()
