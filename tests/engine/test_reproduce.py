"""``fcnkern reproduce``: what it reports is what the logs and the networks say; a stopped experiment goes on."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fcnkern.cli import main
from fcnkern.data import eval_batches, open_dataset, preset
from fcnkern.engine import confusion_over, load_trained
from fcnkern.engine.reproduce.curves import Curve, read_curve
from fcnkern.engine.reproduce.experiment import resized
from fcnkern.engine.reproduce.sampling import compare, mean_loss
from fcnkern.metrics import from_confusion
from tests.data.miniature import make_nyud, make_siftflow
from tests.engine._runs import Images, losses, stopping_after

DATA = "scenes:count=4,size=24x32"
WORDS = [f"--data={DATA}", "--arch=fcn32s", "--width=0.01", "--lr=0.02", "--quiet"]
TRIANGLE = np.array([1, 3, 3, 1]) / 8  # bilinear at half the size, over the area of the new pixel


def reproduce(experiment: str, out: Path, *words: str) -> int:
    return main(["reproduce", experiment, *WORDS, f"--out={out}", *words])


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("staged")
    assert reproduce("camvid", out, "--iterations=2") == 0
    return out


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sampled")
    assert reproduce("sampling", out, "--iterations=3", "--cell=4") == 0
    return out


def test_staged_results_are_those_of_the_checkpoints(staged: Path) -> None:
    record = json.loads((staged / "results.json").read_text())
    test_set = open_dataset(DATA, "test")
    scores = []
    for name in ("32s", "16s", "8s"):
        trained = load_trained(staged / name / "last.pt")
        metrics = from_confusion(confusion_over(trained.model, test_set, preset(trained.model.preprocess)))
        stage = record["stages"][name]
        assert stage["test"]["mean_iu"] == metrics.mean_iu
        assert stage["iterations"] == trained.iteration == 2
        assert stage["epochs"] == 0.5
        assert f"| FCN-{name} | 2 | 0.50 |" in (staged / "results.md").read_text()
        scores.append(metrics.mean_iu)
    assert record["finer_is_better"] == (scores[0] < scores[1] < scores[2])
    assert record["image_size"] == [24, 32]
    assert "data" not in record["settings"]
    with Image.open(staged / "sheet.jpg") as picture:
        assert picture.width > 5 * 240
    assert (staged / "sheet.jpg").stat().st_size < 500_000


def test_sampled_losses_are_those_of_the_logs(sampled: Path) -> None:
    with (sampled / "sampling.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    record = json.loads((sampled / "sampling.json").read_text())
    assert record["iteration"] == 3
    for place, (label, folder, images) in enumerate(
        (("all pixels", "100", 1), ("50 % of them", "50", 2), ("25 % of them", "25", 4))
    ):
        mine = [row for row in rows if row["curve"] == label]
        logged = losses(sampled / f"{folder}-percent")
        assert [int(row["images"]) for row in mine] == [images, 2 * images, 3 * images]
        assert [float(row["loss"]) for row in mine] == pytest.approx([float(x) for _, x in logged], abs=1e-5)
        assert record["per_iteration"][place] == pytest.approx(float(mine[-1]["smoothed"]), abs=1e-5)
        last = sampled / f"{folder}-percent" / "last.pt"
        assert record["validation"][place] == mean_loss(last, open_dataset(DATA, "val"))
    first = [row["loss"] for row in rows if row["iteration"] == "1"]
    assert (
        len(set(first)) == 1
    )  # the score layers start at zero: log of the number of classes, however sampled
    assert "at iteration 3" in (sampled / "sampling.md").read_text()


def test_mean_loss_is_over_pixels_of_all_images(sampled: Path) -> None:
    labels = [
        np.full((24, 32), 255, np.uint8),
        np.full((24, 32), 3, np.uint8),
        np.full((30, 40), 5, np.uint8),
    ]
    labels[1][:20] = 255
    dataset = Images(labels, classes=8)
    path = sampled / "100-percent" / "last.pt"
    model = load_trained(path).model
    with torch.no_grad():
        total = sum(
            F.cross_entropy(
                model(batch.images), batch.labels.long(), ignore_index=255, reduction="sum"
            ).item()
            for batch in eval_batches(dataset, preset(model.preprocess))
        )
    assert mean_loss(path, dataset) == pytest.approx(total / (4 * 32 + 30 * 40), rel=1e-5)


def test_comparison_is_where_all_have_come() -> None:
    quick = Curve("quick", 1, [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])
    slow = Curve("slow", 2, [1, 2], [2.0, 3.5], [4.0, 2.5])
    found = compare([quick, slow], [0.0, 0.0])
    assert (found.iteration, found.per_iteration) == (2, [3.0, 2.5])
    assert (found.seconds, found.per_time) == (3.5, [2.0, 2.5])
    assert quick.smooth(2) == [4.0, 3.5, 2.5, 1.5]


def test_iterations_without_pixels_are_no_losses(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        "iteration,split,pixel_loss,elapsed\n1,train,2.0,1\n2,train,0.0,2\n3,train,1.0,3\n4,val,,4\n"
    )
    assert read_curve(log, "some", 1) == Curve("some", 1, [1, 3], [1.0, 3.0], [2.0, 1.0])
    log.write_text("iteration,split,pixel_loss,elapsed\n1,train,0.0,1\n")
    with pytest.raises(ValueError, match=r"log.csv has a pixel that counts"):
        read_curve(log, "none", 1)


def test_repeating_trains_nothing(
    staged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in staged.glob("*/*.pt")}
    (staged / "results.json").unlink()
    (staged / "curve.png").unlink(missing_ok=True)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert reproduce("camvid", staged, "--iterations=2") == 0
    assert (staged / "results.json").exists()
    assert not (staged / "curve.png").exists()
    assert "pip install 'fcnkern[plot]'" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in staged.glob("*/*.pt")} == before


@pytest.mark.parametrize("experiment", ["camvid", "sampling"])
def test_a_stopped_experiment_goes_on(
    experiment: str, staged: Path, sampled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, names, words = {
        "camvid": (staged, ("32s", "16s", "8s"), ["--iterations=2"]),
        "sampling": (sampled, ("100-percent", "50-percent", "25-percent"), ["--iterations=3", "--cell=4"]),
    }[experiment]
    with monkeypatch.context() as patch:
        patch.setattr("fcnkern.engine.trainer.stop_requested", stopping_after(4))
        assert reproduce(experiment, tmp_path, *words) == 143
    assert not list(tmp_path.glob("*.json"))
    assert reproduce(experiment, tmp_path, *words) == 0
    for name in names:
        assert losses(tmp_path / name) == losses(whole / name)


def test_more_iterations_go_on_with_every_share(sampled: Path, tmp_path: Path) -> None:
    assert reproduce("sampling", tmp_path, "--iterations=1", "--cell=4") == 0
    assert reproduce("sampling", tmp_path, "--iterations=3", "--cell=4") == 0
    for name in ("100-percent", "50-percent", "25-percent"):
        assert losses(tmp_path / name) == losses(sampled / name)


def test_pictures(staged: Path, sampled: Path) -> None:
    pytest.importorskip("matplotlib")
    assert reproduce("camvid", staged, "--iterations=2") == 0
    for path in (staged / "curve.png", sampled / "sampling.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert (pixels[0, 0] == 255).all()
        assert (pixels == (0, 0x72, 0xB2)).all(-1).any()


def test_resized_copy(tmp_path: Path) -> None:
    copy = open_dataset(resized(DATA, (12, 16), ("train",), tmp_path), "train")
    original = open_dataset(DATA, "train")
    assert (copy.classes, len(copy)) == (original.classes, len(original))
    assert (copy.palette == original.palette).all()
    for mine, theirs in zip(copy, original, strict=True):  # type: ignore[call-overload]
        assert mine.image.shape == (12, 16, 3)
        assert (mine.label == theirs.label[1::2, 1::2]).all()
        rows = np.stack([theirs.image[k : k + 20 : 2] for k in range(1, 5)], -1) @ TRIANGLE
        both = np.stack([rows[:, k : k + 28 : 2] for k in range(1, 5)], -1) @ TRIANGLE
        assert np.abs(mine.image[1:-1, 1:-1] - both).max() <= 1  # rounded twice, after rows and columns


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--width=0.02"], "holds another experiment: width cannot change"),
        (["--data=scenes:count=5,size=24x32"], "holds another experiment: data cannot change"),
        (["--size=0x5"], "size must be at least 1x1, got 0x5"),
        (["--size=100000x100000"], "pixels, got 100000x100000"),
    ],
)
def test_errors(words: list[str], said: str, staged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce("camvid", staged, "--iterations=2", *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("source", ["rgbd", "depth", "hha"])
def test_only_colour_images_are_scaled(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"--data=nyud:{make_nyud(tmp_path / 'nyud', train=['5001'], val=['5002'])},input={source}"
    words, out = ["--iterations=1", "--cell=2", data], tmp_path / "out"
    assert reproduce("sampling", out, "--size=12x16", *words) == 2
    assert (
        f"size scales colour images, those of {data[7:]} are for 'nyud-{source}'" in capsys.readouterr().err
    )
    assert not out.exists()
    assert reproduce("sampling", out, *words) == 0


def test_no_copy_is_begun_without_all_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"--data=nyud:{make_nyud(tmp_path / 'nyud', train=['5001'], val=['5002'])}"
    assert reproduce("camvid", tmp_path / "out", "--size=12x16", data) == 2
    assert "test.txt is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_splits_that_share_names_stay_apart(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    for place, split in enumerate(("train", "val")):
        image = np.full((6, 8, 3), 100 * place, np.uint8)
        for part, array in ((split, image), (f"{split}annot", image[:, :, 0] // 100)):
            (tmp_path / part).mkdir()
            Image.fromarray(array).save(tmp_path / part / "0001.png")
        (tmp_path / f"{split}.txt").write_text(f"{split}/0001.png {split}annot/0001.png\n")
    copy = resized(f"camvid:{tmp_path}", (3, 4), ("train", "val"), folder)
    for place, split in enumerate(("train", "val")):
        sample = open_dataset(copy, split)[0]
        assert (sample.image == 100 * place).all()
        assert (sample.label == place).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "data must have one task, "), (["--size=12x16"], "size scales images of one label map, those of ")],
)
def test_several_tasks_are_refused_before_anything(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_siftflow(tmp_path / "sift", train=["a1", "a2"], val=["a3"])
    data = f"--data=siftflow:{root},task=both"
    assert reproduce("sampling", tmp_path / "out", "--iterations=1", "--cell=2", data, *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_copy_of_other_data_is_not_taken(tmp_path: Path) -> None:
    for _ in range(2):
        resized(DATA, (12, 16), ("train",), tmp_path)
    with pytest.raises(ValueError, match="is a copy of scenes:count=4,size=24x32, not of scenes:count=5"):
        resized("scenes:count=5", (12, 16), ("train",), tmp_path)


def test_data_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "camvid", f"--out={tmp_path}"]) == 2
    assert "data is needed" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
