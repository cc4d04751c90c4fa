"""The paper's staged training, FCN-32s to FCN-8s, scored on a test set (CVPR sections 4.2 and 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import fcnkern
from fcnkern._files import write_atomically
from fcnkern.data import Dataset, open_dataset, preset
from fcnkern.engine.checkpoint import LAST
from fcnkern.engine.device import choose_device
from fcnkern.engine.evaluate import confusion_over
from fcnkern.engine.network import Trained, load_trained
from fcnkern.engine.outputs import LOG
from fcnkern.engine.progress import Progress
from fcnkern.engine.report import NAMES, metrics_record
from fcnkern.engine.reproduce.curves import Curve, draw_losses, figure_of, read_curve, save_figure
from fcnkern.engine.reproduce.experiment import StoppedByError, begin, write_json, write_lines
from fcnkern.engine.settings import STAGES, TrainSettings
from fcnkern.engine.sheets import comparison
from fcnkern.engine.stages import run_stages
from fcnkern.metrics import Metrics, from_confusion

SPLITS = ("train", "val", "test")
SHOWN, CELL_WIDTH, QUALITY = 5, 240, 85
CAMVID = TrainSettings(
    arch="fcn8s_googlenet",
    stages=STAGES,
    batch_size=1,
    lr=2.5e-3,
    stage_lr=0.5,
    time_limit=2700.0,
)
"""Settings of the experiment: rates for an ImageNet body and few epochs; the paper's are for days."""


@dataclass(frozen=True)
class TestedStage:
    """A trained stage.

    Attributes:
        name: such as ``32s``.
        curve: its training.
        epochs: how often it saw each training image.
        metrics: on the test set.
    """

    name: str
    curve: Curve
    epochs: float
    metrics: Metrics

    @property
    def images_per_second(self) -> float:
        """Of training, the loading of images and the writing of checkpoints included."""
        return self.curve.iteration[-1] * self.curve.images / self.curve.seconds[-1]


def reproduce_stages(settings: TrainSettings, out: str | Path, *, quiet: bool = False) -> list[TestedStage]:
    """Trains the stages of ``settings`` in turn and scores each on the test set of its data.

    Goes on, or scores and draws anew, where ``out`` has this very experiment.

    Args:
        settings: ``CAMVID`` with the data and the weights changed, for example; their data have the splits
            train, val and test.
        out: folder of the runs and of ``results.json``, ``results.md``, ``sheet.jpg`` and, where matplotlib is
            installed, ``curve.png``.

    Raises:
        FileNotFoundError, ValueError, RuntimeError, OSError: as ``run_stages``; there is no test set.
        StoppedByError: a signal stopped it.
    """
    out = Path(out)
    train_set, test_set = open_dataset(settings.data, "train"), open_dataset(settings.data, "test")
    begin(settings, out)
    results = run_stages(settings, out, quiet=quiet)
    if results[-1].signal:
        raise StoppedByError(results[-1].signal, out)
    images = settings.batch_size * settings.accumulate
    networks, tested = [], []
    for result in results:
        networks.append(load_trained(out / result.name / LAST))
        metrics = _tested(networks[-1], test_set, settings, quiet)
        curve = read_curve(out / result.name / LOG, f"FCN-{result.name}", images)
        tested.append(TestedStage(result.name, curve, result.iteration * images / len(train_set), metrics))
    write_json(out / "results.json", _record(settings, test_set, tested))
    write_lines(out / "results.md", [results_table(tested)])
    _draw(tested, out / "curve.png")
    picture = comparison(
        test_set, networks, [stage.curve.label for stage in tested], SHOWN, cell_width=CELL_WIDTH
    )
    write_atomically(out / "sheet.jpg", lambda file: picture.save(file, format="JPEG", quality=QUALITY))
    return tested


def _tested(network: Trained, test_set: Dataset, settings: TrainSettings, quiet: bool) -> Metrics:
    network.model.to(choose_device(settings.device))
    images = preset(network.model.preprocess)
    with Progress("test", len(test_set), enabled=not quiet) as bar:
        confusion = confusion_over(
            network.model, test_set, images, precision=settings.precision, progress=bar
        )
    return from_confusion(confusion)


def results_table(stages: Sequence[TestedStage]) -> str:
    """A row for each stage, in Markdown: how it was trained, and its metrics on the test set in per cent."""
    lines = [
        f"| stage | iterations | epochs | seconds | images/s | {' | '.join(NAMES.values())} |",
        f"|---|{'---:|' * (4 + len(NAMES))}",
    ]
    for stage in stages:
        numbers = " | ".join(f"{100 * getattr(stage.metrics, field):.2f}" for field in NAMES)
        training = f"{stage.curve.iteration[-1]} | {stage.epochs:.2f} | {stage.curve.seconds[-1]:.0f}"
        rate = f"{stage.images_per_second:.2f}"
        lines.append(f"| {stage.curve.label} | {training} | {rate} | {numbers} |")
    return "\n".join(lines)


def _record(settings: TrainSettings, test_set: Dataset, stages: Sequence[TestedStage]) -> dict[str, Any]:
    """Everything that was measured, and with what."""
    info = fcnkern.info()
    scores = [stage.metrics.mean_iu for stage in stages]
    device = choose_device(settings.device)
    return {
        "fcnkern": info["fcnkern"],
        "torch": info["torch"],
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else info["processor"],
        "threads": torch.get_num_threads(),
        "settings": {
            name: Path(value).name if name == "weights" and value is not None else value
            for name, value in settings.to_dict().items()
            if name != "data"
        },
        "test_images": len(test_set),
        "image_size": list(test_set[0].label.shape),
        "finer_is_better": all(a < b for a, b in pairwise(scores)),
        "stages": {
            stage.name: {
                "iterations": stage.curve.iteration[-1],
                "epochs": round(stage.epochs, 3),
                "seconds": stage.curve.seconds[-1],
                "images_per_second": round(stage.images_per_second, 3),
                "test": metrics_record(stage.metrics, test_set.classes),
            }
            for stage in stages
        },
    }


def _draw(stages: Sequence[TestedStage], path: Path) -> None:
    """Loss over the iterations of all stages, one behind the other, and the test set's mean IU."""
    figure = figure_of((10, 4), path)
    if figure is None:
        return
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    begins, places = 0, []
    for stage in stages:
        places.append([begins + iteration for iteration in stage.curve.iteration])
        begins = places[-1][-1]
    window = max(1, min(50, begins // 30))
    draw_losses(left, places, [stage.curve for stage in stages], window)
    left.set_xlabel("iterations")
    left.legend(title=f"means over {window} iterations", frameon=False)
    scores = [100 * stage.metrics.mean_iu for stage in stages]
    bars = right.bar([stage.curve.label for stage in stages], scores, color="#0072B2")
    right.bar_label(bars, fmt="%.1f")
    right.set_ylabel("mean IU on the test set, %")
    save_figure(figure, path)
