"""Training end to end, and scores to confusion matrix, beside the same networks and loop with PyTorch's own modules.

``python -m benchmarks.training [--data camvid:PATH] [--bodies vgg16,googlenet] [--width X] [--out PATH]``
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # the current folder: a checkout does not hide an installed fcnkern

import argparse
import json
import re
import statistics
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch

from benchmarks.command import recorded, seconds, writable, write
from benchmarks.evaluation import measure_evaluation
from benchmarks.report import circumstances
from benchmarks.training_memory import full_resolution_bytes, peak_bytes
from benchmarks.training_step import PARTS, Contender, checked_pair
from fcnkern.data import Batch, Dataset, ShuffledIndices, collate, open_dataset, preset, train_batches

SCENES = "scenes:count=64,size=180x240"
BODIES = {"vgg16": 0.25, "googlenet": 1.0}
"""Bodies, and the widths that they have unless told: VGG16 at full width takes seconds an image on a CPU."""
GOALS = {"vgg16": 1.3, "googlenet": 1.0}
WARM_UP, LEAST_ROUNDS, LOADED = 2, 5, 16


def measure(contenders: list[Contender], dataset: Dataset, preprocess: str, seconds: float) -> dict[str, Any]:
    """Steps of each contender in turn, each on batches of its own loader: medians in milliseconds of every part."""
    taken: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
    loaders = [
        train_batches(dataset, preset(preprocess), ShuffledIndices(len(dataset), 1, seed=0))
        for _ in contenders
    ]
    with closing(_Closing(loaders)):
        start, rounds = 0.0, 0
        while rounds < WARM_UP + LEAST_ROUNDS or time.perf_counter() - start < seconds:
            if rounds == WARM_UP:
                start = time.perf_counter()
            for contender, loader in zip(contenders, loaders, strict=True):
                begin = time.perf_counter()
                batch = next(loader)
                waited = time.perf_counter() - begin
                parts = {"data": waited, **contender.step(batch)}
                if rounds >= WARM_UP:
                    taken[contender.name].append(parts)
            rounds += 1
    return {name: _summary(steps) for name, steps in taken.items()}


class _Closing:
    """Generators that are closed together."""

    def __init__(self, generators: list[Generator[Batch, None, None]]) -> None:
        self._generators = generators

    def close(self) -> None:
        for generator in self._generators:
            generator.close()


def _summary(steps: list[dict[str, float]]) -> dict[str, Any]:
    totals = [sum(parts.values()) for parts in steps]
    middle = {part: 1e3 * statistics.median(parts[part] for parts in steps) for part in ("data", *PARTS)}
    lower, median, upper = statistics.quantiles(totals, n=4)
    return {
        "images_per_second": 1 / median,
        "ms": 1e3 * median,
        "quartiles_ms": [1e3 * lower, 1e3 * upper],
        "steps": len(steps),
        "parts_ms": middle,
    }


def loading_ms(dataset: Dataset, preprocess: str) -> float:
    """Median milliseconds to read and prepare one image, with nothing beside it."""
    times = []
    for index in range(min(LOADED, len(dataset))):
        begin = time.perf_counter()
        collate([dataset[index]], preset(preprocess))
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def measure_body(body: str, width: float, data: str, seconds: float) -> dict[str, Any]:
    """One body: speed, division of the time, memory.

    Raises:
        AssertionError: ours and stock compute something else.
    """
    dataset = open_dataset(data, "train")
    ours, stock, preprocess = checked_pair(body, width, dataset)
    speeds = measure([ours, stock], dataset, preprocess, seconds)
    size = dataset[0].label.shape
    peaks = {name: peak_bytes(body, width, size, len(dataset.classes), name) for name in speeds}
    return {
        "body": body,
        "width": width,
        "size": list(size),
        "classes": len(dataset.classes),
        "goal": GOALS[body],
        "ratio": speeds["stock"]["ms"] / speeds["ours"]["ms"],
        "loading_ms": loading_ms(dataset, preprocess),
        "speeds": speeds,
        "peak_bytes": peaks,
        "full_resolution_bytes": full_resolution_bytes(size, len(dataset.classes)),
    }


def as_markdown(facts: dict[str, Any], bodies: list[dict[str, Any]], evaluation: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        f"`{facts['command']}` at commit {facts['commit']}, {facts['date']}; {facts['processor']}, "
        f"{facts['threads']} threads, torch {facts['torch']}",
        "",
        "Medians, steps taken in turn. *wait*: for the loader, which works ahead; *peak*: memory of a step beside",
        "weights, gradients and momentum; *full resolution*: floats of that size alive at once in the stock loss.",
        "",
        f"| training FCN-8s | images/s | ms | wait | {' | '.join(PARTS)} | peak MB | ratio | goal |",
        f"|---|{'---:|' * (6 + len(PARTS))}",
    ]
    lines += [_row(found, name) for found in bodies for name in found["speeds"]]
    lines.append("")
    lines += [_notes(found) for found in bodies]
    lines.append(
        f"\nScores to confusion matrix, {evaluation['images']} images of {evaluation['data']}: "
        f"{evaluation['ours_ms']:.3g} ms an image, upsampled, argmax and bincount {evaluation['stock_ms']:.3g} ms: "
        f"{evaluation['ratio']:.1f}× (goal 10)."
    )
    return "\n".join(lines) + "\n"


def _row(found: dict[str, Any], name: str) -> str:
    speed, peak = found["speeds"][name], found["peak_bytes"][name]
    height, width = found["size"]
    compared = [f"{found['ratio']:.2f}", f"{found['goal']:g}"] if name == "ours" else ["", ""]
    cells = [
        f"{found['body']} {found['width']:g}, {height}×{width}, {name}",
        f"{speed['images_per_second']:.3g}",
        f"{speed['ms']:.1f}",
        *(f"{speed['parts_ms'][part]:.1f}" for part in ("data", *PARTS)),
        "" if peak is None else f"{peak / 1e6:.1f}",
        *compared,
    ]
    return f"| {' | '.join(cells)} |"


def _notes(found: dict[str, Any]) -> str:
    share = found["loading_ms"] / found["speeds"]["ours"]["ms"]
    line = f"{found['body']}: loading takes {found['loading_ms']:.1f} ms an image, {100 * share:.0f} % of our step"
    ours, stock = found["peak_bytes"]["ours"], found["peak_bytes"]["stock"]
    if ours is not None and stock is not None:
        full = found["full_resolution_bytes"] / 1e6
        line += f"; peak lower by {(stock - ours) / 1e6:.1f} MB, full resolution {full:.1f} MB"
    return line + "."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    add = parser.add_argument
    add("--data", default=SCENES, metavar="SPEC", help=f"data set with train and test (default {SCENES})")
    add("--bodies", default=",".join(BODIES), metavar="NAME,NAME", help="bodies (default: both)")
    add("--width", type=float, metavar="X", help=f"of the bodies (default {BODIES})")
    add("--seconds", type=seconds, default=20.0, metavar="S", help="of steps for each body (default 20)")
    add("--threads", type=int, metavar="N", help="CPU threads")
    add("--images", type=int, default=40, metavar="N", help="images of the test set to count (default 40)")
    add("--out", type=writable, metavar="PATH", help="write PATH.json and PATH.md")
    given = parser.parse_args()
    chosen = given.bodies.split(",")
    if unknown := sorted(set(chosen) - set(BODIES)):
        parser.error(f"--bodies: {', '.join(unknown)} is unknown, wanted {', '.join(BODIES)}")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    bodies = [measure_body(body, given.width or BODIES[body], given.data, given.seconds) for body in chosen]
    evaluation = measure_evaluation(given.data, given.images)
    arguments = [re.sub(r"^((?:--data=)?(?!scenes)\w+):.*", r"\1:PATH", word) for word in sys.argv[1:]]
    facts = circumstances(recorded("benchmarks.training", arguments))
    text = as_markdown(facts, bodies, evaluation)
    print(text)
    if given.out is not None:
        record = {"circumstances": facts, "training": bodies, "evaluation": evaluation}
        write(given.out, json.dumps(record, indent=1) + "\n", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
