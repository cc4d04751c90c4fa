"""``fcnkern demo``: from nothing to segmented street scenes in under two minutes."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fcnkern.data import open_dataset, preset, sheet
from fcnkern.engine.evaluate import confusion_over
from fcnkern.engine.interrupt import StoppedError
from fcnkern.engine.network import load_trained
from fcnkern.engine.predict import predict_image, save_png
from fcnkern.engine.runs import start_run
from fcnkern.engine.settings import TrainSettings
from fcnkern.metrics import Metrics, from_confusion

SCENES = "scenes:count=4000,size=144x192"
SCORED, SHOWN = 50, 4
PICTURE, CHECKPOINT = "fcnkern-demo.png", "fcnkern-demo.pt"


@dataclass(frozen=True)
class DemoResult:
    """Validation metrics before and after training, and the files written."""

    before: Metrics
    after: Metrics
    classes: list[str]
    picture: Path
    checkpoint: Path


def demo_settings(seconds: float) -> TrainSettings:
    """A small FCN-8s from scratch; the schedule ends with the time."""
    return TrainSettings(
        data=SCENES,
        val_split="none",
        arch="fcn8s",
        width=0.125,
        dropout=0.0,
        time_limit=seconds,
        batch_size=1,
        lr=0.05,
        momentum=0.95,
        schedule="poly",
        warmup=50,
        clip=1.0,
        class_weights="sqrt",
        precision="fp32",
    )


def run_demo(out: str | Path, seconds: float, *, quiet: bool = False) -> DemoResult:
    """Trains on the embedded scenes for ``seconds``, and writes a picture and a checkpoint into ``out``.

    The whole takes about half a minute longer than the training.

    Raises:
        StoppedError: a signal ended the training; nothing is written then.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = demo_settings(seconds)
    scored = open_dataset(settings.data, "val", count=SCORED)
    with tempfile.TemporaryDirectory() as folder:
        trainer = start_run(settings, folder, quiet=quiet)
        images = preset(trainer.model.preprocess)
        before = from_confusion(confusion_over(trainer.model, scored, images))
        result = trainer.run()
        if result.signal:
            raise StoppedError(result.signal)
        shutil.copyfile(trainer.last, out / CHECKPOINT)
    trained = load_trained(out / CHECKPOINT)
    after = from_confusion(confusion_over(trained.model, scored, images))
    samples = [scored[index] for index in range(SHOWN)]
    rows = [(sample.image, sample.label, predict_image(trained, sample.image)) for sample in samples]
    picture = sheet(rows, ("image", "truth", "prediction"), trained.palette, trained.classes)
    save_png(picture, out / PICTURE)
    return DemoResult(before, after, trained.classes, out / PICTURE, out / CHECKPOINT)
