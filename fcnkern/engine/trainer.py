"""Training: one loop, exact resume, no full-resolution scores."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

import fcnkern
from fcnkern.data import Augment, Batch, Dataset, ShuffledIndices, preset, train_batches
from fcnkern.engine.checkpoint import save_checkpoint
from fcnkern.engine.evaluate import autocast, confusion_over
from fcnkern.engine.interrupt import stop_requested
from fcnkern.engine.log import CsvLog
from fcnkern.engine.optim import make_optimizer, set_rate
from fcnkern.engine.progress import Progress
from fcnkern.engine.report import metrics_line
from fcnkern.engine.schedules import schedule_factor, warmup_factor
from fcnkern.engine.settings import TrainSettings
from fcnkern.metrics import Metrics, from_confusion
from fcnkern.models import FCN
from fcnkern.sampling import Sampling

LAST, BEST, LOG = "last.pt", "best.pt", "log.csv"
SMOOTHING = 0.95
SCALES = (0.75, 1.5)


@dataclass
class Step:
    """What one iteration reports: the loss as optimised, its mean over pixels, the accuracy, the rate."""

    loss: float
    pixel_loss: float
    accuracy: float
    lr: float


@dataclass
class TrainResult:
    """How a run ended: iterations done, seconds, last and best validation, and whether a signal stopped it."""

    iteration: int
    elapsed: float
    metrics: Metrics | None
    best_mean_iu: float
    interrupted: bool


@dataclass
class Position:
    """Where a run stands: iterations and seconds done, best validation mean IU so far."""

    iteration: int = 0
    elapsed: float = 0.0
    best_mean_iu: float = -1.0


class Trainer:
    """Trains ``model`` on ``train_set`` as ``settings`` say, writing into the folder ``out``.

    ``out`` gets ``last.pt`` (the newest checkpoint), ``best.pt`` (the one of best validation mean IU) and
    ``log.csv``. With the same settings, data and number of threads a run is reproducible bit for bit, also when it
    was killed and resumed in between (unless a time limit sets the schedule: then the clock takes part).

    Args:
        val_set: data set to validate on, or None to train without.
        class_weight: float C, or None.
        resume: a loaded checkpoint of this very run to go on from, or None.
        quiet: show no progress.

    Raises:
        RuntimeError: the network is not ready (an uninitialised body).
        ValueError: the data set's classes are not the network's.
    """

    def __init__(
        self,
        settings: TrainSettings,
        model: FCN,
        train_set: Dataset,
        val_set: Dataset | None,
        out: Path,
        *,
        class_weight: Tensor | None = None,
        resume: dict[str, Any] | None = None,
        quiet: bool = False,
    ) -> None:
        if len(train_set.classes) != model.n_class:
            raise ValueError(
                f"the data set has {len(train_set.classes)} classes, the network {model.n_class}"
            )
        self.settings, self.model, self.out, self.quiet = settings, model, out, quiet
        self.train_set, self.val_set = train_set, val_set
        self.class_weight = class_weight
        self.optimizer = make_optimizer(
            model, momentum=settings.momentum, weight_decay=settings.weight_decay, score_lr=settings.score_lr
        )
        self.position = Position()
        self._smooth: Step | None = None
        if resume is not None:
            self._restore(resume)
        model.check_ready()

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.out / LAST

    @property
    def best(self) -> Path:
        """The checkpoint of best validation mean IU."""
        return self.out / BEST

    # ---------------------------------------------------------------- the loop

    def run(self) -> TrainResult:
        """Trains until the limit, a signal or an error; the last validation is always on all of ``val_set``."""
        settings, position = self.settings, self.position
        self._clock = time.monotonic() - position.elapsed
        self._save(self.last)
        metrics, interrupted = None, False
        log = CsvLog(self.out / LOG, position.iteration)
        bar = Progress("train", settings.iterations, position.iteration, enabled=not self.quiet)
        try:
            with stop_requested() as stop, bar, closing(self._batches()) as batches:
                while self._progress() < 1.0 and not interrupted:
                    step = self._step(next(batches))
                    position.iteration += 1
                    self._report(step, log, bar)
                    if self._due(settings.val_every) and self._progress() < 1.0:
                        self._validate(log, bar, settings.val_limit)
                    if self._due(settings.save_every):
                        self._save(self.last)
                    interrupted = stop()
                if not interrupted:
                    metrics = self._validate(log, bar, None)
                self._save(self.last)
        finally:
            log.close()
        return TrainResult(position.iteration, position.elapsed, metrics, position.best_mean_iu, interrupted)

    def _batches(self) -> Generator[Batch, None, None]:
        """The training batches from here on: data order and augmentation depend on seed and iteration alone."""
        settings = self.settings
        augment = None
        if settings.augment or settings.crop is not None:
            scale = SCALES if settings.augment else None
            augment = Augment(settings.seed, mirror=settings.augment, scale=scale, crop=settings.crop)
        indices = ShuffledIndices(len(self.train_set), settings.batch_size, settings.seed)
        return train_batches(
            self.train_set,
            preset(self.model.preprocess),
            indices,
            start=self.position.iteration,
            augment=augment,
        )

    def _progress(self) -> float:
        """How much of the run is done, in [0, 1]: by iterations or by time, whichever is further."""
        settings, position = self.settings, self.position
        by_count = position.iteration / settings.iterations if settings.iterations else 0.0
        by_time = position.elapsed / settings.time_limit if settings.time_limit else 0.0
        return max(by_count, by_time)

    def _due(self, every: int) -> bool:
        return every > 0 and self.position.iteration % every == 0

    # ---------------------------------------------------------------- one iteration

    def _step(self, batch: Batch) -> Step:
        settings = self.settings
        rate = self._rate()
        set_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(settings.precision):
            loss, stats = self.model.loss(
                batch.images.contiguous(memory_format=torch.channels_last),
                batch.labels,
                class_weight=self.class_weight,
                ignore_index=self.train_set.ignore_index,
                reduction=settings.reduction,
                sampling=self._sampling(),
                return_stats=True,
            )
        self._check_finite("the loss", loss.item())
        loss.backward()
        limit = math.inf if settings.clip is None else settings.clip
        norm = clip_grad_norm_(self._learning(), limit)
        self._check_finite("the norm of the gradient", norm.item())
        self.optimizer.step()
        valid, correct = (int(count) for count in stats)
        pixels = max(valid, 1)
        pixel_loss = loss.item() * (len(batch.images) / pixels if settings.reduction == "batch" else 1.0)
        return Step(loss.item(), pixel_loss, correct / pixels, rate)

    def _rate(self) -> float:
        settings = self.settings
        factor = schedule_factor(settings.schedule, self._progress())
        return settings.lr * factor * warmup_factor(self.position.iteration, settings.warmup)

    def _sampling(self) -> Sampling | None:
        """The loss sampling of this iteration; its seed comes from torch's generator, whose state is saved."""
        if self.settings.sampling is None:
            return None
        seed = int(torch.randint(2**62, ()).item())
        return Sampling(self.settings.sampling, cell=self.settings.cell, seed=seed)

    def _learning(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise RuntimeError(
                f"{what} is {value} at iteration {self.position.iteration}: training diverged; "
                f"start again with a lower lr (it was {self.settings.lr:g}) or clip (it was {self.settings.clip}); "
                f"the last good checkpoint is {self.last}"
            )

    # ---------------------------------------------------------------- reports, validation, checkpoints

    def _report(self, step: Step, log: CsvLog, bar: Progress) -> None:
        self.position.elapsed = time.monotonic() - self._clock
        log.write(
            iteration=self.position.iteration,
            split="train",
            loss=step.loss,
            pixel_loss=step.pixel_loss,
            accuracy=step.accuracy,
            lr=step.lr,
            elapsed=round(self.position.elapsed, 3),
        )
        self._smooth = step if self._smooth is None else _blend(self._smooth, step)
        note = f"loss {self._smooth.pixel_loss:.3f}, accuracy {100 * self._smooth.accuracy:.1f} %"
        if self.settings.time_limit is not None:
            note += f", {max(0.0, self.settings.time_limit - self.position.elapsed):.0f} s left"
        bar.advance(note)

    def _validate(self, log: CsvLog, bar: Progress, limit: int | None) -> Metrics | None:
        """Scores the network on the validation set and keeps the checkpoint if it is the best."""
        if self.val_set is None:
            return None
        position, model = self.position, self.model
        matrix = confusion_over(
            model, self.val_set, preset(model.preprocess), limit=limit, precision=self.settings.precision
        )
        metrics = from_confusion(matrix)
        position.elapsed = time.monotonic() - self._clock
        log.write(
            iteration=position.iteration,
            split="val",
            accuracy=metrics.pixel_accuracy,
            elapsed=round(position.elapsed, 3),
            mean_accuracy=metrics.mean_accuracy,
            mean_iu=metrics.mean_iu,
            fw_iu=metrics.fw_iu,
        )
        bar.say(
            f"iteration {position.iteration}, {position.elapsed:.0f} s: validation {metrics_line(metrics)}"
        )
        if metrics.mean_iu > position.best_mean_iu:
            position.best_mean_iu = metrics.mean_iu
            self._save(self.best)
        return metrics

    def _save(self, path: Path) -> None:
        self._check_finite("the norm of the weights", get_total_norm(self._learning()).item())
        position = self.position
        content = {
            "version": fcnkern.__version__,
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "iteration": position.iteration,
            "elapsed": position.elapsed,
            "best_mean_iu": position.best_mean_iu,
            "class_weight": self.class_weight,
            "settings": self.settings.to_dict(),
            "classes": list(self.train_set.classes),
            "palette": torch.from_numpy(self.train_set.palette.copy()),
            "preprocess": self.model.preprocess,
        }
        save_checkpoint(path, content)

    def _restore(self, record: dict[str, Any]) -> None:
        self.model.load_state_dict(record["state_dict"])
        self.optimizer.load_state_dict(record["optimizer"])
        torch.set_rng_state(record["rng"])
        self.position = Position(record["iteration"], record["elapsed"], record["best_mean_iu"])


def _blend(old: Step, new: Step) -> Step:
    """Exponential average of two reports, for the eye."""
    mix = (
        SMOOTHING * a + (1 - SMOOTHING) * b
        for a, b in zip(vars(old).values(), vars(new).values(), strict=True)
    )
    return Step(*mix)
