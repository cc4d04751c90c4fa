"""Bad input and faults of the machine: named, and nothing that was saved is lost."""

from __future__ import annotations

import json
import resource
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcnkern.cli import main
from fcnkern.data import DataError, open_dataset
from fcnkern.engine import DivergedError, TrainSettings, load_checkpoint, resume_run
from fcnkern.engine.broken import SkipBroken
from fcnkern.engine.log import read_log
from fcnkern.engine.outputs import Outputs
from fcnkern.engine.progress import Progress
from fcnkern.engine.trainer import Trainer
from tests.data.miniature import SCENES, make_by_stem, make_nyud, make_sbd, make_siftflow, make_voc
from tests.engine._runs import TINY, Images, losses, tiny

SIZE, CLASSES = (24, 32), 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, four to train on and one to validate on."""
    root = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for index in range(5):
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(root / "images" / f"p{index}.png")
        Image.fromarray(rng.integers(0, CLASSES, SIZE).astype(np.uint8)).save(
            root / "labels" / f"p{index}.png"
        )
    (root / "train.txt").write_text("p0\np1\np2\np3\n")
    (root / "val.txt").write_text("p4\n")
    (root / "classes.txt").write_text("a\nb\nc\n")
    return root


def words(folder: Path, out: Path, *more: str) -> list[str]:
    base = ["train", f"--data=folder:{folder}", "--width=0.01", "--iterations=8", "--quiet", f"--out={out}"]
    return [*base, *more]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def test_a_damaged_image_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut(folder / "images" / "p2.png")
    assert main(words(folder, tmp_path / "run")) == 2
    assert f"image {folder / 'images' / 'p2.png'} is truncated" in capsys.readouterr().err


@pytest.mark.parametrize("every", [0, 3])
def test_a_validation_that_fails_costs_no_iteration(folder: Path, tmp_path: Path, every: int) -> None:
    cut(folder / "images" / "p4.png")
    out, reached = tmp_path / "run", every or 8
    assert main(words(folder, out, f"--val-every={every}")) == 2
    assert load_checkpoint(out / "last.pt")["iteration"] == reached
    assert main(["train", f"--resume={out}", "--val-split=none", "--quiet"]) == 0
    assert [int(iteration) for iteration, _ in losses(out)] == list(range(1, 9))


def test_damaged_images_are_skipped_on_request_and_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(folder / "images" / "p2.png")
    cut(folder / "labels" / "p4.png")
    assert main(words(folder, tmp_path / "run", "--skip-broken")) == 0
    error = capsys.readouterr().err
    assert "left out 2 images that could not be read" in error
    for part, name in (("image", "images/p2.png"), ("label", "labels/p4.png")):
        assert error.count(f"skipped: {part} {folder / name} is truncated") == 1
    assert len(losses(tmp_path / "run")) == 8


def test_eval_leaves_out_what_train_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "val.txt").write_text("p4\np0\np1\n")
    assert main(words(folder, tmp_path / "run")) == 0
    score = ["eval", f"--checkpoint={tmp_path / 'run' / 'last.pt'}", "--json=-", "--quiet"]
    (folder / "val.txt").write_text("p4\n")
    capsys.readouterr()
    assert main(score) == 0
    expected = json.loads(capsys.readouterr().out)
    (folder / "val.txt").write_text("p0\np4\np1\n")
    cut(folder / "labels" / "p0.png")
    (folder / "images" / "p1.png").unlink()
    assert main(score) == 2
    assert "lists what is missing, 1 in all: " in capsys.readouterr().err
    assert main([*score, "--skip-broken"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == expected
    assert f"skipped: label {folder / 'labels' / 'p0.png'} is truncated" in output.err
    assert output.err.count(str(folder / "images" / "p1")) == 1
    assert output.err.endswith("left out 2 images that could not be read\n")
    cut(folder / "images" / "p4.png")
    assert main([*score, "--skip-broken"]) == 2
    error = capsys.readouterr().err
    assert "no image that can be read; the first: label " in error
    assert main([*score, "--limit=0"]) == 2
    assert "limit must be at least 1, got 0" in capsys.readouterr().err


def laid_out(layout: str, root: Path) -> tuple[str, list[Path]]:
    """Images a to d to train on and e to validate on: the data set's name, and the files of b, c and e."""
    ids = {"train": [f"500{k}" for k in range(4)], "val": ["5005"]}
    lost = [ids["train"][1], ids["train"][2], ids["val"][0]]
    if layout == "voc":
        make_voc(root / "VOC2012", **ids)
        return f"voc:{root}", [root / "VOC2012" / "JPEGImages" / f"{i}.jpg" for i in lost]
    if layout == "sbd":
        make_sbd(root, **ids)
        return f"sbd:{root}", [root / "cls" / f"{i}.mat" for i in lost]
    if layout == "nyud":
        make_nyud(root, **ids)
        return f"nyud:{root}", [root / "segmentation" / f"img_{i}.mat" for i in lost]
    if layout == "siftflow":
        make_siftflow(root, **ids)
        return f"siftflow:{root}", [root / "Images" / SCENES / f"{i}.jpg" for i in lost]
    make_by_stem(root, **ids)
    return f"folder:{root}", [root / "labels" / f"{i}.png" for i in lost]


@pytest.mark.parametrize("layout", ["folder", "voc", "sbd", "nyud", "siftflow"])
def test_missing_files_are_named_at_the_beginning_and_skipped_on_request(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, files = laid_out(layout, tmp_path / "data")
    for file in files:
        file.unlink()
    command = [
        "train",
        f"--data={data}",
        "--width=0.01",
        "--iterations=5",
        "--quiet",
        f"--out={tmp_path / 'run'}",
    ]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "lists what is missing, 2 in all: " in error
    assert all(str(file.with_suffix("")) in error for file in files[:2])
    assert not (tmp_path / "run").exists()
    assert main([*command, "--skip-broken"]) == 0
    error = capsys.readouterr().err
    assert "left out 3 images that could not be read" in error
    for file in files:
        assert error.count(f"{file.with_suffix('')}") == 1
    assert len(losses(tmp_path / "run")) == 5


def test_the_next_image_takes_the_place_of_a_broken_one(folder: Path) -> None:
    for name in ("p1", "p3"):
        cut(folder / "images" / f"{name}.png")
    said: list[str] = []
    plain = open_dataset(f"folder:{folder}", "train")
    training = SkipBroken(plain, blank=False, report=said.append)
    assert [training[i].name for i in (0, 1, 2, 3, 1, -1)] == ["p0", "p2", "p2", "p0", "p2", "p0"]
    assert sorted(training.broken) == [1, 3]
    assert [line.split(" is ")[0] for line in said] == [
        f"skipped: image {folder / 'images' / f'{name}.png'}" for name in ("p1", "p3")
    ]
    scoring = SkipBroken(plain, blank=True, report=said.append)
    assert (scoring[1].label == 255).all()
    assert scoring[2].name == "p2"
    with pytest.raises(IndexError):
        training[4]
    for name in ("p0", "p2"):
        cut(folder / "images" / f"{name}.png")
    with pytest.raises(DataError, match=r"no image that can be read; the first: image .*p0\.png"):
        SkipBroken(plain, blank=False, report=said.append)[0]


def test_a_label_outside_the_classes_names_file_and_value(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "labels" / "p1.png"
    label = np.array(Image.open(path))
    label[3, 4] = 7
    Image.fromarray(label).save(path)
    assert main(words(folder, tmp_path / "run")) == 2
    assert f"label {path} has 1 pixels with values 7, wanted 0..2 or 255" in capsys.readouterr().err


def test_a_label_outside_the_classes_in_memory_names_the_image(tmp_path: Path) -> None:
    ready = tiny(tmp_path / "a")
    wrong = Images([np.full(SIZE, 200, np.uint8)], classes=11)
    with pytest.raises(ValueError, match=r"200.*\(on the image image_0\)"):
        Trainer(ready.settings, ready.model, wrong, None, tmp_path / "b", quiet=True).run()


def test_not_a_number_names_the_images(tmp_path: Path) -> None:
    trainer = tiny(tmp_path, batch_size=2, iterations=3)
    names = next(iter(trainer._batches())).names
    with torch.no_grad():
        trainer.model.score_fr.bias[0] = torch.nan
    trainer._save = lambda *_, **__: None  # type: ignore[method-assign]
    with pytest.raises(
        DivergedError, match=f"the loss is nan on the images {names[0]}, {names[1]} at iteration 0"
    ):
        trainer.run()


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path, iterations=2, width=0.02).run()
    last = tmp_path / "last.pt"
    before = last.read_bytes()
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, own[1]))  # the log and the settings fit
    try:
        assert main(["train", "--quiet", "--resume", str(last), "--iterations=4"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    error = capsys.readouterr().err
    assert f"checkpoint {last} cannot be written" in error
    assert "what it held before is intact" in error
    assert last.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.toml", "last.pt", "log.csv"]
    assert resume_run(last, iterations=4, quiet=True).run().iteration == 4


@pytest.mark.parametrize(
    ("data", "difference"),
    [
        ("scenes:count=7,size=24x32", "images: 7 instead of 6"),
        (
            "scenes:count=6,size=24x32,seed=5",
            "checksum of the first image: [0-9a-f]{8} instead of [0-9a-f]{8}",
        ),
    ],
)
def test_another_data_set_is_refused(tmp_path: Path, data: str, difference: str) -> None:
    tiny(tmp_path, iterations=1).run()
    with pytest.raises(ValueError, match=rf"is not the one the run began with: .*{difference}"):
        resume_run(tmp_path / "last.pt", data=data)


def test_other_classes_and_another_architecture_are_refused(tmp_path: Path, folder: Path) -> None:
    tiny(tmp_path / "run", iterations=1).run()
    with pytest.raises(ValueError, match=r"has the classes a, b, c, .* was trained on sky, building"):
        resume_run(tmp_path / "run" / "last.pt", data=f"folder:{folder}")
    with pytest.raises(
        ValueError, match=r"arch cannot change when resuming \(the run has 'fcn8s', got 'fcn16s'\)"
    ):
        resume_run(tmp_path / "run" / "last.pt", arch="fcn16s")


def test_data_may_move(tmp_path: Path, folder: Path) -> None:
    assert main(words(folder, tmp_path / "run")) == 0
    folder.rename(tmp_path / "elsewhere")
    last = str(tmp_path / "run" / "last.pt")
    moved = f"--data=folder:{tmp_path / 'elsewhere'}"
    assert main(["train", "--resume", last, moved, "--iterations=9", "--quiet"]) == 0


def test_a_run_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"--resume={tmp_path / 'none'}"]) == 2
    assert f"resume {tmp_path / 'none'} does not exist, wanted the folder of a run" in capsys.readouterr().err


class Writer:
    """In place of TensorBoard's: keeps what is written."""

    made: list[Any]

    def __init__(self, log_dir: str, purge_step: int) -> None:
        self.log_dir, self.purge_step, self.rows, self.closed = log_dir, purge_step, [], False
        Writer.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.rows.append((tag, value, step))

    def flush(self) -> None:
        self.flushed = len(self.rows)

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_the_numbers_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Writer.made = []
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    tiny(tmp_path, iterations=2, val_split="val", tensorboard=True).run()
    resume_run(tmp_path / "last.pt", iterations=3, quiet=True).run()
    first, second = Writer.made
    assert (first.log_dir, first.purge_step, second.purge_step) == (str(tmp_path / "events"), 1, 3)
    assert first.closed
    assert second.closed
    assert second.flushed == len(second.rows)
    rows = {(tag, step): value for tag, value, step in first.rows + second.rows}
    for row in read_log(tmp_path / "log.csv"):
        for name in ("loss", "accuracy", "lr", "mean_iu"):
            if row[name]:
                assert rows[f"{row['split']}/{name}", int(row["iteration"])] == float(row[name])


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(name, reason="needs tensorboard: pip install tensorboard")
    tiny(tmp_path, iterations=4, save_every=2, val_split="val", tensorboard=True).run()
    resume_run(tmp_path / "last.pt", iterations=6, quiet=True).run()
    outputs = Outputs(tmp_path, tensorboard=True)
    outputs.open(5, TrainSettings(**TINY))
    outputs.step(6, 1.0, loss=3.0)
    outputs.save(tmp_path / "last.pt", {})
    read = events.EventAccumulator(str(tmp_path / "events")).Reload()
    outputs.close()
    expected = [row for row in read_log(tmp_path / "log.csv") if row["split"] == "train"]
    assert [each.step for each in read.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    values = [each.value for each in read.Scalars("train/loss")]
    assert values == [np.float32(row["loss"]) for row in expected]
    assert values[5] == 3.0
    assert [each.step for each in read.Scalars("val/mean_iu")] == [4]


def test_tensorboard_where_it_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match=r"tensorboard is not installed .*pip install tensorboard"):
        tiny(tmp_path, tensorboard=True)


def test_progress_tells_the_time_left_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Progress("train", 1000, start=100) as bar:
        for _ in range(300):
            clock[0] += 0.5
            bar.advance("loss 1")
    lines = capsys.readouterr().err.splitlines()
    # every 20 s = 40 iterations; 0.5 s for each of those that are left
    assert lines[0] == "train 140/1000, 0:07:10 left, loss 1"
    assert lines[-1] == "train 380/1000, 0:05:10 left, loss 1"
