"""One of two processes that train together: python _pair.py OUT WHAT..., with torchrun's environment variables.

Run alone it is the one process to compare with, whose batches are twice as large.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import get_total_norm

from fcnkern.data import IGNORE, Batch, Tasks
from fcnkern.engine import resume_run
from fcnkern.engine.command import _run_one
from fcnkern.engine.device import choose_device
from fcnkern.engine.distributed import count, gathered, processes, rank, summed
from fcnkern.engine.network import new_network
from fcnkern.engine.objective import Objective
from fcnkern.engine.progress import Progress
from fcnkern.engine.trainer import Trainer
from fcnkern.models import create
from tests.engine._runs import Images, tiny

CLASSES, STOPPED = 11, 3
STEADY: dict[str, Any] = {"dropout": 0.0, "schedule": "constant", "lr": 0.05, "width": 1 / 16}
WEIGHTS = torch.linspace(0.2, 3.0, CLASSES)
VARIANTS: dict[str, dict[str, Any]] = {
    "mean": {},
    "weighted": {"accumulate": 2, "aux": 0.3, "ema": 0.5, "clip": 0.1},
    "summed": {"reduction": "batch", "lr": 1e-4},
    "tasks": {},
}
RANDOM = {
    "augment": True,
    "crop": (20, 28),
    "dropout": 0.5,
    "sampling": 0.5,
    "cell": 4,
    "schedule": "constant",
}


def ragged(images: int, *, seed: int = 0) -> Images:
    """Images of which some have nearly no pixel that counts, so that a mean of means is far from the mean."""
    rng, labels = np.random.default_rng(seed), []
    for index in range(images):
        label = np.full((24, 32), IGNORE, np.uint8)
        rows = (24, 1, 7, 2)[index % 4]
        label[:rows] = rng.integers(0, CLASSES, (rows, 32)) // (1 + index % 3)
        labels.append(label)
    return Images(labels, classes=CLASSES)


def data_of(variant: str, images: int, *, seed: int = 0) -> Images | Tasks:
    """Ragged images, of the variant ``tasks`` with two label maps each."""
    first = ragged(images, seed=seed)
    if variant != "tasks":
        return first
    return Tasks("ragged", {"first": first, "second": ragged(images, seed=seed + 2)})


def curves(out: Path) -> None:
    """Each variant in a folder of its own; in ``naive``, what is wrong: the mean of the processes' means."""
    run_variants(out, VARIANTS)
    if count() > 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fcnkern.engine.objective.summed", lambda own: count() * own)
            run_variants(out, {"naive": {}})


def run_variants(out: Path, variants: dict[str, dict[str, Any]]) -> None:
    for name, settings in variants.items():
        ready = tiny(out / name, batch_size=4 // count(), **{**STEADY, **settings})
        torch.manual_seed(0)
        train_set = data_of(name, 10)
        Trainer(
            ready.settings,
            new_network(ready.settings, len(train_set.classes)),
            train_set,
            data_of(name, 5, seed=1),
            out / name,
            class_weight=WEIGHTS if name == "weighted" else None,
            quiet=True,
        ).run()


def resumed(out: Path) -> None:
    """The same run whole and in two parts; one that ends by the clock."""
    tiny(out / "whole", iterations=4, **RANDOM).run()
    tiny(out / "parts", iterations=2, **RANDOM).run()
    resume_run(out / "parts" / "last.pt", iterations=4, quiet=True).run()
    by_time = tiny(out / "timed", iterations=None, time_limit=0.3).run()
    assert len(set(gathered(by_time.iteration))) == 1
    if count() > 1:
        with pytest.raises(ValueError, match="cuda:0 is one GPU for 2 processes"):
            choose_device("cuda:0")


def stopped(out: Path) -> None:
    """A Ctrl-C in one process, and again, as torchrun repeats what the terminal sends to all."""
    trainer = tiny(out / "stopped", iterations=1000)
    iterate = trainer._iterate

    def interrupted(batches: Generator[Batch, None, None], bar: Progress) -> None:
        iterate(batches, bar)
        if trainer.position.iteration == STOPPED and rank() == count() - 1:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    trainer._iterate = interrupted  # type: ignore[method-assign]
    assert _run_one(trainer) == 128 + signal.SIGINT


def broken(out: Path) -> None:
    """A label that is no class, in an image that only the last process meets in the first iteration."""
    trainer = tiny(out / "broken", lr=1e-3)
    images = ragged(6)
    trainer.train_set = images
    order = np.random.default_rng([trainer.settings.seed, 0]).permutation(len(images))
    images.labels[order[1]][0, 0] = 200
    trainer.run()


def sharded(out: Path) -> None:
    """Losses and norms of gradients of three steps with FSDP2, or alone without; saved in losses.pt."""
    torch.manual_seed(0)
    model = create("fcn8s", 5, width=1 / 16)
    model.set_dropout(0.0)
    for score in (model.score_fr, model.score_pool3, model.score_pool4):
        nn.init.normal_(score.weight, std=0.1)
    objective = Objective(model, class_weight=None, ignore_index=IGNORE, reduction="valid")
    images, labels = torch.randn(2, 3, 24, 32), torch.randint(0, 5, (2, 24, 32))
    labels[1, 3:] = IGNORE
    own = slice(None)
    if count() > 1:
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                fully_shard(layer)
        fully_shard(objective)
        own = slice(rank(), rank() + 1)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    record = []
    for _ in range(3):
        loss = objective(images[own], labels[own], None)[0]
        loss.backward()
        norm = get_total_norm([p.grad for p in objective.parameters() if p.grad is not None])
        record.append((summed(loss.detach().clone()).item() / count(), norm.item()))
        optimizer.step()
        optimizer.zero_grad()
    if rank() == 0:
        torch.save(record, out / "losses.pt")


KINDS = {
    "curves": curves,
    "resumed": resumed,
    "stopped": stopped,
    "broken": broken,
    "sharded": sharded,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes():
        for what in sys.argv[2:]:
            KINDS[what](Path(sys.argv[1]))
