"""Training: one loop, exact resume, no full-resolution scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fcnkern
from fcnkern.data import Batch, Dataset, ShuffledIndices, preset, tasks_of, train_batches
from fcnkern.engine.augmentation import augmentation
from fcnkern.engine.broken import SkipBroken
from fcnkern.engine.checkpoint import iteration_reached
from fcnkern.engine.distributed import count, gathered, greatest, rank
from fcnkern.engine.evaluate import confusion_over
from fcnkern.engine.fingerprint import check_same_data, fingerprint
from fcnkern.engine.interrupt import Stoppable, StoppedError, stop_requested
from fcnkern.engine.lock import only_run_in
from fcnkern.engine.loss_sampling import LossSampling
from fcnkern.engine.outputs import Outputs
from fcnkern.engine.progress import Progress
from fcnkern.engine.report import Scores, metrics_line, scores_by_task
from fcnkern.engine.schedules import schedule_factor, warmup_factor
from fcnkern.engine.settings import TrainSettings
from fcnkern.engine.step import DivergedError, Learner, Step
from fcnkern.metrics import Metrics, from_confusion
from fcnkern.models import Segmenter

SMOOTHING = 0.95


@dataclass
class TrainResult:
    """How a run ended.

    Attributes:
        iteration, elapsed: iterations done and seconds taken.
        metrics: of the last validation, on all of the validation set, or None.
        best_mean_iu: of the validations that choose ``best.pt``.
        signal: number of the signal that stopped the run before its end, or 0.
        skipped: images left out because they could not be read.
        scores: of the last validation by task, see ``scores_by_task``; empty where there was none. Of several tasks
            ``metrics`` and ``best_mean_iu`` are over the classes of all.
    """

    iteration: int
    elapsed: float
    metrics: Metrics | None
    best_mean_iu: float
    signal: int
    skipped: int
    scores: dict[str, Scores] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether a signal stopped the run before its end."""
        return self.signal != 0


@dataclass
class Position:
    """Where a run stands: iterations and seconds done, best validation mean IU so far.

    best_images: how many images that was over; 0 where there was none, or where an older version did not say.
    validating: a validation is due before the next iteration; a signal stopped it.
    """

    iteration: int = 0
    elapsed: float = 0.0
    best_mean_iu: float = -1.0
    best_images: int = 0
    validating: bool = False


class Trainer:
    """Trains ``model`` on ``train_set`` as ``settings`` say, writing into the folder ``out``.

    ``out`` gets ``last.pt`` (the newest checkpoint), ``best.pt`` (the one of best validation mean IU), ``log.csv``
    and ``config.toml`` (the settings). With the same settings, data and number of threads a run on the CPU is
    reproducible bit for bit, also when it was killed and resumed in between (unless a time limit sets the schedule:
    then the clock takes part). The network is trained on the device where it is.

    Where ``torch.distributed`` is initialised, every process has a trainer of its own with the same arguments: their
    batches count as one, and only rank 0 writes.

    Args:
        val_set: data set to validate on, or None to train without.
        class_weight: float C, or None.
        class_p: probabilities of the classes in balanced sampling, or None.
        resume: a loaded checkpoint of this very run to go on from, or None.
        quiet: show no progress.

    Raises:
        RuntimeError: the network is not ready (an uninitialised body).
        ValueError: the data set's classes are not the network's, or it is not the one the run began with.
    """

    def __init__(
        self,
        settings: TrainSettings,
        model: Segmenter,
        train_set: Dataset,
        val_set: Dataset | None,
        out: Path,
        *,
        class_weight: Tensor | None = None,
        class_p: Sequence[float] | None = None,
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
        self._outputs = Outputs(out, tensorboard=settings.tensorboard)
        self._sampling = LossSampling(settings, class_p)
        self._augment = augmentation(settings)
        if settings.freeze_body:
            for parameter in model.body_parameters():
                parameter.requires_grad_(False)
        self._learner = Learner(
            model,
            settings,
            self._sampling,
            class_weight=class_weight,
            ignore_index=train_set.ignore_index,
            tasks=tasks_of(train_set),
        )
        self.position = Position()
        self._final: Tensor | None = None
        self._smooth: Step | None = None
        if resume is not None:
            self._restore(resume)
        self._data = fingerprint(train_set, settings.pipeline)
        model.check_ready()

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self._outputs.last

    @property
    def best(self) -> Path:
        """The checkpoint of best validation mean IU."""
        return self._outputs.best

    # ---------------------------------------------------------------- the loop

    def run(self) -> TrainResult:
        """Trains until the limit, a signal or an error; the last validation is always on all of ``val_set``.

        Raises:
            DivergedError: a loss, a gradient or a weight is not finite; names the images.
            FileExistsError: another process trains in the same folder, or has trained there since this run was read.
            OSError: an image cannot be read or a file not be written; names it.
        """
        with only_run_in(self.out) if rank() == 0 else nullcontext():
            if rank() == 0:
                self._check_newest()
            return self._run()

    def _check_newest(self) -> None:
        """Refuses to overwrite what another process has trained in the folder before this one held it."""
        newest = iteration_reached(self.last)
        if newest > self.position.iteration:
            raise FileExistsError(
                f"{self.last} has come to iteration {newest}, this run is at {self.position.iteration} and would "
                f"overwrite it: go on with --resume {self.out}, or choose another folder"
            )

    def _run(self) -> TrainResult:
        settings, position = self.settings, self.position
        self._clock = time.monotonic() - position.elapsed
        metrics, stopped = None, 0
        self._outputs.open(position.iteration, settings, position.validating or self._progress() >= 1.0)
        self._save(self.last)
        bar = Progress("train", settings.iterations, position.iteration, enabled=not self.quiet)
        try:
            with stop_requested() as asked, bar, closing(self._batches()) as batches:

                def stop() -> int:
                    return int(greatest(asked()))

                try:
                    if position.validating:
                        self._validate(bar, stop, settings.val_limit)
                    while self._progress() < 1.0:
                        self._iterate(batches, bar)
                        if self._due(settings.val_every) and self._progress() < 1.0:
                            position.validating = True
                            self._validate(bar, stop, settings.val_limit)
                        if self._due(settings.save_every):
                            self._save(self.last)
                        if number := stop():
                            raise StoppedError(number)
                    metrics = self._validate(bar, stop, None)
                except StoppedError as error:
                    stopped = error.signal
                self._save(self.last, complete=not stopped)
        finally:
            self._outputs.close()
        return TrainResult(
            position.iteration,
            position.elapsed,
            metrics,
            position.best_mean_iu,
            stopped,
            self._skipped(),
            {} if metrics is None else self._scores(),
        )

    def _skipped(self) -> int:
        """How many images could not be read, by any process."""
        tolerant = [d for d in (self.train_set, self.val_set) if isinstance(d, SkipBroken)]
        return sum(len(set().union(*gathered(set(dataset.broken)))) for dataset in tolerant)

    def _elapsed(self) -> float:
        """Seconds since the run began; the same for all processes, as the end may depend on it."""
        return greatest(time.monotonic() - self._clock)

    def _iterate(self, batches: Generator[Batch, None, None], bar: Progress) -> None:
        settings, position = self.settings, self.position
        factor = schedule_factor(settings.schedule, self._progress())
        rate = settings.lr * factor * warmup_factor(position.iteration, settings.warmup)
        try:
            step = self._learner.step(list(islice(batches, settings.accumulate)), rate)
        except DivergedError as error:
            raise self._advised(error) from error
        position.iteration += 1
        position.elapsed = self._elapsed()
        self._outputs.step(position.iteration, position.elapsed, **vars(step))
        self._smooth = step if self._smooth is None else _blend(self._smooth, step)
        note = f"loss {self._smooth.pixel_loss:.3f}, accuracy {100 * self._smooth.accuracy:.1f} %"
        if settings.time_limit is not None:
            note += f", {max(0.0, settings.time_limit - position.elapsed):.0f} s left"
        bar.advance(note)

    def _batches(self) -> Generator[Batch, None, None]:
        """The training batches from here on: data order and augmentation depend on seed and iteration alone."""
        settings = self.settings
        return train_batches(
            self.train_set,
            preset(self.model.preprocess),
            ShuffledIndices(len(self.train_set), self._sampling.images, settings.seed, rank(), count()),
            start=self.position.iteration * settings.accumulate,
            augment=self._augment,
        )

    def _progress(self) -> float:
        return self.settings.progress(self.position.iteration, self.position.elapsed)

    def _due(self, every: int) -> bool:
        return every > 0 and self.position.iteration % every == 0

    def _advised(self, error: DivergedError) -> DivergedError:
        """The error with where it happened and what helps."""
        settings = self.settings
        return DivergedError(
            f"{error} at iteration {self.position.iteration}: training diverged; "
            f"start again with a lower lr (it was {settings.lr:g}) or clip (it was {settings.clip}); "
            f"the last good checkpoint is {self.last}"
        )

    # ---------------------------------------------------------------- validation, checkpoints

    def _validate(self, bar: Progress, stop: Callable[[], int], limit: int | None) -> Metrics | None:
        """Scores the network on the validation set and keeps the checkpoint if it is the best.

        What was done until then is saved first: a validation that fails, or is killed, costs no iteration.
        """
        position = self.position
        if self.val_set is None:
            position.validating = False
            return None
        self._save(self.last)
        self._final = confusion_over(
            self._learner.best_model,
            self.val_set,
            preset(self.model.preprocess),
            limit=limit,
            precision=self.settings.precision,
            progress=Stoppable(stop),
            shared=True,
        )
        position.validating = False
        metrics = from_confusion(self._final)
        position.elapsed = self._elapsed()
        self._outputs.metrics(position.iteration, position.elapsed, metrics)
        bar.say(
            f"iteration {position.iteration}, {position.elapsed:.0f} s: validation {metrics_line(metrics)}"
        )
        for task, scores in self._scores().items():
            if task:
                self._outputs.metrics(position.iteration, position.elapsed, scores.metrics, task)
                bar.say(f"{task}: {metrics_line(scores.metrics)}")
        images = _limited(self.val_set, limit)
        if self._is_best(metrics.mean_iu, images, _limited(self.val_set, self.settings.val_limit)):
            position.best_mean_iu, position.best_images = metrics.mean_iu, images
            self._save(self.best)
        return metrics

    def _is_best(self, mean_iu: float, images: int, usual: int) -> bool:
        """Only scores over as many images are compared, so that with a limit the last one, over all, does not count.

        Where there was none before, it does; after a change of the limit, the usual number, the choice begins anew.
        """
        if self.position.best_images in (0, images):
            return mean_iu > self.position.best_mean_iu
        return images == usual and mean_iu >= 0

    def _scores(self) -> dict[str, Scores]:
        """Of the last validation."""
        assert self._final is not None
        return scores_by_task([self._final], self.train_set.classes, tasks_of(self.train_set))

    def _save(self, path: Path, *, complete: bool = False) -> None:
        """Writes a checkpoint; ``complete`` says that the run has come to its end, with its last validation."""
        try:
            state = self._learner.state()
        except DivergedError as error:
            raise self._advised(error) from error
        content = {
            "version": fcnkern.__version__,
            **state,
            **vars(self.position),
            "complete": complete,
            "confusion": self._final if complete else None,
            "class_weight": self.class_weight,
            "class_p": self._sampling.class_p,
            "settings": self.settings.to_dict(),
            "data": self._data,
            "classes": list(self.train_set.classes),
            "tasks": tasks_of(self.train_set),
            "palette": torch.from_numpy(self.train_set.palette.copy()),
            "preprocess": self.model.preprocess,
        }
        self._outputs.save(path, content)

    def _restore(self, record: dict[str, Any]) -> None:
        if "data" in record:
            check_same_data(record["data"], self.train_set, self.settings.pipeline)
        self._learner.restore(record)
        known = {field.name: record[field.name] for field in fields(Position) if field.name in record}
        self.position = Position(**known)
        if not greatest(self.best.exists()):  # another folder: the choice begins anew there
            self.position.best_mean_iu, self.position.best_images = -1.0, 0


def _limited(dataset: Dataset, limit: int | None) -> int:
    """How many images are validated on."""
    return len(dataset) if limit is None else min(limit, len(dataset))


def _blend(old: Step, new: Step) -> Step:
    """Exponential average of two reports, for the eye."""
    mix = (
        SMOOTHING * a + (1 - SMOOTHING) * b
        for a, b in zip(vars(old).values(), vars(new).values(), strict=True)
    )
    return Step(*mix)
