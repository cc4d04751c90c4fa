"""Starting and resuming training runs that live in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fcnkern.data import Dataset, open_dataset, wanted_preset
from fcnkern.engine.broken import SkipBroken, check_present
from fcnkern.engine.checkpoint import LAST, iteration_reached, load_checkpoint
from fcnkern.engine.class_weights import class_shares, class_weights
from fcnkern.engine.device import choose_device, place_for_training
from fcnkern.engine.distributed import reseed
from fcnkern.engine.loss_sampling import balanced_probabilities
from fcnkern.engine.network import starting_network, trained_from
from fcnkern.engine.progress import say
from fcnkern.engine.settings import STAGES, TrainSettings
from fcnkern.engine.trainer import Trainer
from fcnkern.models import Segmenter

NO_SPLIT = "none"


def start_run(settings: TrainSettings, out: str | Path, *, quiet: bool = False) -> Trainer:
    """A new training run in the folder ``out``, ready to ``run()``.

    Raises:
        FileExistsError: the folder holds a run already.
        FileNotFoundError, ValueError, RuntimeError: data, weights or settings are missing or do not fit.
    """
    if settings.stages is not None:
        raise ValueError("settings with stages are for run_stages, start_run trains one network")
    out = Path(out)
    check_empty(out)
    _set_threads(settings)
    device = choose_device(settings.device)
    train_set, val_set = _data(settings)
    torch.manual_seed(settings.seed)
    classes = train_set.classes
    model, origin = starting_network(settings, len(classes), wanted_preset(train_set), classes)
    reseed(settings.seed)
    place_for_training(model, device)
    if not quiet:
        say(f"{settings.arch}, width {settings.width:g}: {origin}")
        if settings.iterations is not None and settings.warmup > settings.iterations:
            say(f"warmup {settings.warmup} is longer than the run: its rate stays below lr {settings.lr:g}")
    return Trainer(
        settings,
        model,
        train_set,
        val_set,
        out,
        class_weight=class_weights(settings.class_weights, train_set),
        class_p=_class_probabilities(settings, train_set),
        quiet=quiet,
    )


def check_empty(out: Path) -> None:
    """Refuses a folder that holds a run.

    Raises:
        FileExistsError: it does.
    """
    if any((out / folder / LAST).exists() for folder in (".", *(f"{stride}s" for stride in STAGES))):
        raise FileExistsError(
            f"{out} holds a run already: go on with --resume {out}, or choose another folder"
        )


def resume_run(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    model: Segmenter | None = None,
    quiet: bool = False,
    **changes: Any,
) -> Trainer:
    """The run that wrote ``checkpoint``, ready to go on exactly where it stood.

    Args:
        out: where to go on writing; None for the checkpoint's folder.
        model: the network that was trained, where it is not one that the settings describe.
        changes: settings to change; only those that leave what was done valid (see ``TrainSettings.changed``).

    Raises:
        FileExistsError: the folder holds another run, or a later checkpoint of this one.
        FileNotFoundError, ValueError: the checkpoint or the data are missing or damaged, or a change is not allowed.
    """
    checkpoint = Path(checkpoint)
    record = load_checkpoint(checkpoint)
    folder = checkpoint.parent if out is None else Path(out)
    _check_newest(folder, checkpoint, record["iteration"])
    if "class_weight" not in record:
        raise ValueError(f"{checkpoint} holds a network and no run to go on with: begin one with init_from")
    trained = trained_from(record, checkpoint, model)
    settings = trained.settings.changed(**changes)
    _set_threads(settings)
    train_set, val_set = _data(settings)
    if train_set.classes != trained.classes:
        raise ValueError(
            f"data set {settings.data} has the classes {', '.join(train_set.classes)}, "
            f"{checkpoint} was trained on {', '.join(trained.classes)}"
        )
    place_for_training(trained.model.train(), choose_device(settings.device))
    return Trainer(
        settings,
        trained.model,
        train_set,
        val_set,
        folder,
        class_weight=record["class_weight"],
        class_p=record.get("class_p"),
        resume=record,
        quiet=quiet,
    )


def _check_newest(folder: Path, checkpoint: Path, iteration: int) -> None:
    """Refuses to go on in ``folder`` where that would overwrite another run, or what this one did later."""
    last = folder / LAST
    if not last.exists() or last.samefile(checkpoint):
        return
    if folder.resolve() != checkpoint.parent.resolve():
        check_empty(folder)
    newest = iteration_reached(last)
    if newest > iteration:
        raise FileExistsError(
            f"{checkpoint} is at iteration {iteration}, {last} at {newest} would be overwritten: go on with "
            f"--resume {folder}, or give out, another folder"
        )


def _set_threads(settings: TrainSettings) -> None:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


def _class_probabilities(settings: TrainSettings, train_set: Dataset) -> list[float] | None:
    """Probabilities to keep a pixel of each class, where the settings ask for balanced sampling."""
    if settings.sampling is None or settings.sampling_mode != "balanced":
        return None
    return balanced_probabilities(class_shares(train_set).tolist(), settings.sampling)


def _data(settings: TrainSettings) -> tuple[Dataset, Dataset | None]:
    """The training set and, unless it is switched off, the validation set."""
    train_set, val_set = open_dataset(settings.data, "train"), None
    if settings.val_split != NO_SPLIT:
        try:
            val_set = open_dataset(settings.data, settings.val_split)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error} (val_split {NO_SPLIT!r} trains without validation)") from error
    if not settings.skip_broken:
        for dataset in (train_set, val_set):
            if dataset is not None:
                check_present(dataset)
        return train_set, val_set
    tolerant = None if val_set is None else SkipBroken(val_set, blank=True, report=say)
    return SkipBroken(train_set, blank=False, report=say), tolerant
