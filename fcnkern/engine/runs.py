"""Starting and resuming training runs that live in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fcnkern.data import Dataset, open_dataset
from fcnkern.engine.checkpoint import load_checkpoint
from fcnkern.engine.class_weights import class_weights
from fcnkern.engine.network import starting_network, trained_from
from fcnkern.engine.progress import say
from fcnkern.engine.settings import TrainSettings
from fcnkern.engine.trainer import LAST, Trainer

NO_SPLIT = "none"


def start_run(settings: TrainSettings, out: str | Path, *, quiet: bool = False) -> Trainer:
    """A new training run in the folder ``out``, ready to ``run()``.

    Raises:
        FileExistsError: the folder holds a run already.
        FileNotFoundError, ValueError, RuntimeError: data, weights or settings are missing or do not fit.
    """
    out = Path(out)
    if (out / LAST).exists():
        raise FileExistsError(
            f"{out} holds a run already: resume from {out / LAST}, or choose another folder"
        )
    _set_threads(settings)
    train_set, val_set = _data(settings)
    torch.manual_seed(settings.seed)
    model, origin = starting_network(settings, len(train_set.classes))
    if not quiet:
        say(f"{settings.arch}, width {settings.width:g}: {origin}")
    weight = class_weights(settings.class_weights, train_set)
    return Trainer(settings, model, train_set, val_set, out, class_weight=weight, quiet=quiet)


def resume_run(
    checkpoint: str | Path, out: str | Path | None = None, *, quiet: bool = False, **changes: Any
) -> Trainer:
    """The run that wrote ``checkpoint``, ready to go on exactly where it stood.

    Args:
        out: where to go on writing; None for the checkpoint's folder.
        changes: settings to change; only those that leave what was done valid (see ``TrainSettings.changed``).

    Raises:
        FileNotFoundError, ValueError: the checkpoint or the data are missing or damaged, or a change is not allowed.
    """
    checkpoint = Path(checkpoint)
    record = load_checkpoint(checkpoint)
    trained = trained_from(record, checkpoint)
    settings = trained.settings.changed(**changes)
    _set_threads(settings)
    train_set, val_set = _data(settings)
    if train_set.classes != trained.classes:
        raise ValueError(
            f"data set {settings.data} has the classes {', '.join(train_set.classes)}, "
            f"{checkpoint} was trained on {', '.join(trained.classes)}"
        )
    folder = checkpoint.parent if out is None else Path(out)
    trained.model.train()
    return Trainer(
        settings,
        trained.model,
        train_set,
        val_set,
        folder,
        class_weight=record["class_weight"],
        resume=record,
        quiet=quiet,
    )


def _set_threads(settings: TrainSettings) -> None:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


def _data(settings: TrainSettings) -> tuple[Dataset, Dataset | None]:
    """The training set and, unless it is switched off, the validation set."""
    train_set = open_dataset(settings.data, "train")
    if settings.val_split == NO_SPLIT:
        return train_set, None
    try:
        return train_set, open_dataset(settings.data, settings.val_split)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} (val_split {NO_SPLIT!r} trains without validation)") from error
