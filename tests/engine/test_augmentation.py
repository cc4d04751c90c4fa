"""Augmentation as settings say it: the paper's, scale and crop, a library's pipeline; in a run, and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fcnkern.cli import main
from fcnkern.data import Augment, DataError, Sample
from fcnkern.data.pipeline import need_albumentations
from fcnkern.engine import TrainSettings, load_checkpoint, resume_run
from fcnkern.engine.augmentation import augmentation
from tests.engine._runs import TINY, losses, tiny


def of(**settings: object) -> Augment | None:
    return augmentation(TrainSettings(**{**TINY, **settings}))


def inverting(path: Path) -> Callable[[Sample, int], Sample]:
    """In place of ``load_pipeline``: some images negative."""

    def invert(sample: Sample, seed: int) -> Sample:
        return Sample(255 - sample.image, sample.label, sample.name) if seed % 2 else sample

    return invert


def test_the_papers_is_the_default() -> None:
    assert of() is None
    assert of(augment=True, seed=3) == Augment(3, mirror=True, translate=32)
    assert of(augment=True, shift=0) == Augment(mirror=True)
    assert of(shift=5) == Augment(mirror=False, translate=5)
    assert of(scale=(0.5, 2.0), crop=(8, 9)) == Augment(mirror=False, scale=(0.5, 2.0), crop=(8, 9))


def test_a_shift_of_32_pixels_reaches_both_ends() -> None:
    augment = of(augment=True)
    assert augment is not None
    label = np.zeros((80, 80), np.uint8)
    label[40, 40] = 1
    sample = Sample(np.zeros((80, 80, 3), np.uint8), label, "a")
    places = [np.argwhere(augment(sample, epoch, 0).label == 1)[0].tolist() for epoch in range(400)]
    rows, columns = (set(values) for values in zip(*places, strict=True))
    assert (min(rows), max(rows)) == (40 - 32, 40 + 32)
    assert columns <= {*range(39 - 32, 40 + 32 + 1)}


@pytest.mark.parametrize("scale", [(1.0,), (0.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)])
def test_bad_scales(scale: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scale must be two factors"):
        of(scale=scale)


def test_a_pipeline_changes_the_run_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnkern.engine.augmentation.load_pipeline", inverting)
    file = tmp_path / "p.json"
    file.write_text("{}")
    settings = {"schedule": "constant", "augment": True, "scale": (0.75, 1.5)}
    tiny(tmp_path / "without", **settings).run()
    tiny(tmp_path / "whole", pipeline=str(file), **settings).run()
    tiny(tmp_path / "parts", pipeline=str(file), iterations=2, **settings).run()
    last = tmp_path / "parts" / "last.pt"
    resume_run(last, iterations=4, quiet=True).run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole") != losses(tmp_path / "without")
    with pytest.raises(ValueError, match="pipeline cannot change"):
        resume_run(last, iterations=6, quiet=True, pipeline="other.json")
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"checksum of the pipeline: [0-9a-f]{8} instead of [0-9a-f]{8}"):
        resume_run(last, iterations=6, quiet=True)


def test_a_library_trains_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        library = need_albumentations()
    except RuntimeError as error:
        pytest.skip(str(error))
    file = tmp_path / "p.yaml"
    library.save(library.Compose([library.ColorJitter(p=1), library.Rotate(10)]), file, data_format="yaml")
    command = ["train", *(f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()), "--quiet"]
    assert main([*command, "--augment", f"--pipeline={file}", f"--out={tmp_path / 'a'}"]) == 0
    config = f"--config={tmp_path / 'a' / 'config.toml'}"
    assert main(["train", config, "--quiet", f"--out={tmp_path / 'b'}"]) == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert load_checkpoint(tmp_path / "b" / "last.pt")["settings"]["pipeline"] == str(file)


def test_a_file_that_is_no_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"lr": 1}))
    with pytest.raises((DataError, RuntimeError), match=r"no pipeline of albumentations|need albumentations"):
        of(pipeline=str(file))
    with pytest.raises(FileNotFoundError, match=r"none\.json does not exist"):
        of(pipeline=str(tmp_path / "none.json"))
