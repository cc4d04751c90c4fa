"""Figure 5 of the CVPR paper: sampling the loss leaves iterations as good and makes them slower (section 4.3)."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcnkern._files import write_atomically
from fcnkern.data import Dataset, eval_batches, open_dataset, preset, tasks_of
from fcnkern.engine.checkpoint import LAST
from fcnkern.engine.evaluate import evaluating
from fcnkern.engine.loss_sampling import LossSampling
from fcnkern.engine.network import load_trained
from fcnkern.engine.outputs import LOG
from fcnkern.engine.reproduce.curves import Curve, draw_losses, figure_of, read_curve, save_figure
from fcnkern.engine.reproduce.experiment import StoppedByError, begin, write_json, write_lines
from fcnkern.engine.settings import TrainSettings
from fcnkern.engine.stages import run_stage

SHARES = (1.0, 0.5, 0.25)
MOST_SMOOTHED = 50
SAMPLING = TrainSettings(
    arch="fcn32s_googlenet",
    val_split="none",
    batch_size=1,
    lr=2e-3,
    schedule="constant",
    warmup=20,
    time_limit=480.0,
)
"""Settings of the experiment; the rate is constant, so that equal iterations are equal steps."""


@dataclass(frozen=True)
class SamplingResult:
    """What the figure shows, in numbers.

    Attributes:
        curves: of each share of the pixels, as logged.
        window: iterations that the smoothed losses are means over.
        iteration: the last one that all have reached; per_iteration: the smoothed losses there.
        seconds: the time that all have had; per_time: the smoothed losses there.
        validation: losses of the trained networks over all pixels of the validation set.
    """

    curves: list[Curve]
    window: int
    iteration: int
    per_iteration: list[float]
    seconds: float
    per_time: list[float]
    validation: list[float]

    @property
    def sentence(self) -> str:
        """What is seen."""
        names = ", ".join(curve.label for curve in self.curves)
        return (
            f"Loss with {names}: {_listed(self.per_iteration)} at iteration {self.iteration}, the last that all "
            f"reached; {_listed(self.per_time)} after {self.seconds:.0f} s each, in which they made "
            f"{', '.join(str(curve.iteration[-1]) for curve in self.curves)} iterations; then over all pixels of "
            f"the validation set {_listed(self.validation)}."
        )


def reproduce_sampling(settings: TrainSettings, out: str | Path, *, quiet: bool = False) -> SamplingResult:
    """Trains one network with all, half and a quarter of the pixels in the loss, and 1, 2 and 4 times the images.

    All three begin with the same weights and see the images in orders of the same seed. The mean over the
    pixels that are kept estimates the mean over all, so the curves can be compared. The time is shared
    evenly. Goes on, also with more iterations or time, or draws anew, where ``out`` has this very experiment.

    Args:
        settings: of the training with whole images; ``SAMPLING`` with the data changed, for example.
        out: folder of ``sampling.csv`` (every iteration), ``sampling.json``, ``sampling.md`` and, where matplotlib
            is installed, ``sampling.png``.

    Raises:
        FileNotFoundError, ValueError, RuntimeError, OSError: as ``start_run`` and ``Trainer.run``; the data have
            several tasks.
        StoppedByError: a signal stopped it.
    """
    out = Path(out)
    validation_set = open_dataset(settings.data, "val")
    if tasks := tasks_of(validation_set):
        raise ValueError(f"data must have one task, {settings.data} has {', '.join(tasks)}")
    begin(settings, out)
    share_of_time = None if settings.time_limit is None else settings.time_limit / len(SHARES)
    curves, validation = [], []
    for share in SHARES:
        name = f"{100 * share:g}-percent"
        sampled = dataclasses.replace(
            settings, time_limit=share_of_time, sampling=None if share == 1.0 else share, val_split="none"
        )
        stopped = run_stage(name, sampled, out / name, quiet, extend=True).signal
        if stopped:
            raise StoppedByError(stopped, out)
        label = "all pixels" if share == 1.0 else f"{100 * share:g} % of them"
        images = LossSampling(sampled).images * settings.accumulate
        curves.append(read_curve(out / name / LOG, label, images))
        validation.append(mean_loss(out / name / LAST, validation_set))
    result = compare(curves, validation)
    _write_csv(out / "sampling.csv", curves, result.window)
    record = {key: value for key, value in dataclasses.asdict(result).items() if key != "curves"}
    write_json(out / "sampling.json", {"curves": [curve.label for curve in curves], **record})
    write_lines(out / "sampling.md", [result.sentence])
    _draw(result, out / "sampling.png")
    return result


def compare(curves: Sequence[Curve], validation: Sequence[float]) -> SamplingResult:
    """The curves where all have come equally far, by iterations and by time."""
    iteration = min(curve.iteration[-1] for curve in curves)
    seconds = min(curve.seconds[-1] for curve in curves)
    window = max(1, min(MOST_SMOOTHED, iteration // 10))
    smooth = [curve.smooth(window) for curve in curves]
    reached = [sum(step <= iteration for step in curve.iteration) for curve in curves]
    done = [sum(time <= seconds for time in curve.seconds) for curve in curves]
    return SamplingResult(
        list(curves),
        window,
        iteration,
        [losses[max(count, 1) - 1] for losses, count in zip(smooth, reached, strict=True)],
        seconds,
        [losses[max(count, 1) - 1] for losses, count in zip(smooth, done, strict=True)],
        list(validation),
    )


def mean_loss(checkpoint: Path, dataset: Dataset) -> float:
    """The mean loss of a trained network over all labelled pixels of a data set."""
    trained = load_trained(checkpoint)
    total, pixels = 0.0, 0
    with evaluating(trained.model):
        for batch in eval_batches(dataset, preset(trained.model.preprocess)):
            valid = int((batch.labels != dataset.ignore_index).sum())
            if valid:
                total += valid * trained.model.loss(batch.images, batch.labels).item()
                pixels += valid
    return total / max(pixels, 1)


def _listed(losses: Sequence[float]) -> str:
    return ", ".join(f"{loss:.3f}" for loss in losses)


def _write_csv(path: Path, curves: Sequence[Curve], window: int) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("curve", "iteration", "images", "seconds", "loss", "smoothed"))
    for curve in curves:
        rows = zip(curve.iteration, curve.seconds, curve.loss, curve.smooth(window), strict=True)
        for iteration, seconds, loss, smoothed in rows:
            images = iteration * curve.images
            writer.writerow((curve.label, iteration, images, seconds, f"{loss:.5f}", f"{smoothed:.5f}"))
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _draw(result: SamplingResult, path: Path) -> None:
    figure = figure_of((10, 4), path)
    if figure is None:
        return
    curves = result.curves
    left, right = figure.subplots(1, 2, sharey=True)
    draw_losses(left, [curve.iteration for curve in curves], curves, result.window)
    draw_losses(right, [curve.seconds for curve in curves], curves, result.window)
    left.set_xlim(0, result.iteration)
    left.set_xlabel("iterations")
    right.set_xlabel("seconds of training")
    right.set_ylabel("")
    right.legend(title=f"means over {result.window} iterations", frameon=False)
    save_figure(figure, path)
