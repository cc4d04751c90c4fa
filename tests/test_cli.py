"""The command line as a user meets it: what it writes, prints and refuses."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import Module

from fcnkern import cli
from fcnkern.data import CAMVID_CLASSES, CAMVID_PALETTE
from fcnkern.engine import demo, load_trained, predict_image, values
from fcnkern.engine.log import read_log
from fcnkern.engine.network import save_trained
from fcnkern.models import list_models
from tests.engine._runs import stopping_after

DATA = "scenes:count=3,size=24x32"
TINY = ["--data", DATA, "--width", "0.01", "--quiet"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained by the command for two iterations."""
    out = tmp_path_factory.mktemp("run")
    assert cli.main(["train", *TINY, "--iterations", "2", "--out", str(out)]) == 0
    return out / "last.pt"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a command that must fail: exit code 2, one line, no traceback."""
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fcnkern: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_train_writes_checkpoints_and_a_log(checkpoint: Path) -> None:
    assert {file.name for file in checkpoint.parent.iterdir()} == {
        "last.pt",
        "best.pt",
        "log.csv",
        "config.toml",
    }
    assert [row["split"] for row in read_log(checkpoint.parent / "log.csv")] == ["train", "train", "val"]
    trained = load_trained(checkpoint)
    assert trained.classes == list(CAMVID_CLASSES)
    assert trained.settings.width == 0.01


def test_eval_prints_a_table_and_writes_json(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--checkpoint", str(checkpoint), "--quiet"]
    assert cli.main([*words, "--json", str(tmp_path / "scores.json")]) == 0
    table = capsys.readouterr().out
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["images"] == 3
    assert f"{100 * record['mean_iu']:.2f} %" in table
    assert all(name in table for name in CAMVID_CLASSES)
    assert list(record["per_class_iu"]) == list(CAMVID_CLASSES)
    last = read_log(checkpoint.parent / "log.csv")[-1]
    assert record["fw_iu"] == float(last["fw_iu"])
    monkeypatch.setattr("os.access", lambda *_: False)  # of the folder it runs in
    assert cli.main([*words, "--json", "-", "--limit", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1


def test_eval_looks_first_whether_its_json_can_be_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--checkpoint", str(checkpoint), "--quiet", "--json"]
    assert cli.main([*words, str(tmp_path / "deep" / "scores.json")]) == 0
    assert json.loads((tmp_path / "deep" / "scores.json").read_text())["images"] == 3
    assert "mean IU" in capsys.readouterr().out
    monkeypatch.setattr(cli, "write_atomically", _fail)
    assert cli.main([*words, str(tmp_path / "b.json")]) == 2
    captured = capsys.readouterr()
    assert "mean IU" in captured.out
    assert "no space" in captured.err
    monkeypatch.setattr(cli, "confusions_over", _fail)
    assert f"got the folder {tmp_path}" in refused([*words, str(tmp_path)], capsys)
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused([*words, str(tmp_path / "file" / "x.json")], capsys)


def _fail(*arguments: object, **options: object) -> None:
    raise OSError("no space")


def test_predict_writes_palette_labels_and_overlays_of_any_size(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.new("L", (1, 1), 90).save(folder / "b.png")
    (folder / "notes.txt").write_text("no image")
    assert (
        cli.main(["predict", "--checkpoint", str(checkpoint), "--out", str(out), "--quiet", str(folder)]) == 0
    )
    assert {file.name for file in out.iterdir()} == {"a.png", "a_overlay.png", "b.png", "b_overlay.png"}
    label = Image.open(out / "a.png")
    assert (label.mode, label.size) == ("P", (47, 33))
    trained = load_trained(checkpoint)
    assert np.array_equal(np.array(label), predict_image(trained, pixels))
    assert label.getpalette()[: 3 * 11] == CAMVID_PALETTE.reshape(-1).tolist()
    overlay = np.array(Image.open(out / "a_overlay.png")).astype(int)
    expected = (pixels.astype(int) + CAMVID_PALETTE[np.array(label)]) / 2
    assert np.abs(overlay - expected).max() <= 1


def test_predict_averages_over_copies(checkpoint: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (21, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    words = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--quiet"]
    assert cli.main(["predict", str(tmp_path / "a.png"), "--flip", "--scales", "0.5,1", *words]) == 0
    expected = predict_image(load_trained(checkpoint), pixels, scales=(0.5, 1.0), flip=True)
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "a.png")), expected)


def test_predict_never_overwrites_its_inputs(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    before = image.read_bytes()
    words = ["predict", "--checkpoint", str(checkpoint), str(image)]
    assert f"writing {image} would overwrite an input" in refused([*words, "--out", str(tmp_path)], capsys)
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "sub" / "a.bmp")
    twins = [*words, str(tmp_path / "sub" / "a.bmp"), "--out", str(tmp_path / "out")]
    assert "would both be written to" in refused(twins, capsys)
    pollutes = ["predict", "--checkpoint", str(checkpoint), str(tmp_path), "--out", str(tmp_path)]
    assert f"out must not be a folder of inputs, got {tmp_path}" in refused(pollutes, capsys)
    assert image.read_bytes() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", *TINY, "--lr", "-1", "--iterations", "1"], "lr must be more than 0, got -1.0"),
        (["train", "--data", "pascal", "--iterations", "1"], "data set 'pascal' is unknown"),
        (["train", "--data", "camvid:no-such-folder"], "no-such-folder does not exist"),
        (["train", *TINY, "--weights", "missing.npz"], "missing.npz"),
        (["train", "--resume", "missing.pt"], "resume missing.pt does not exist, wanted the folder of a run"),
        (["eval", "--checkpoint", "missing.pt"], "checkpoint missing.pt does not exist"),
        (["predict", "--checkpoint", "missing.pt", "x.png"], "checkpoint missing.pt does not exist"),
        (["demo", "--seconds", "0"], "seconds must be more than 0, got 0.0"),
    ],
)
def test_user_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(words, capsys)


def test_bad_files_are_named(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(checkpoint.read_bytes()[:5000])
    assert f"checkpoint {cut} cannot be read" in refused(["eval", "--checkpoint", str(cut)], capsys)
    words = ["predict", "--checkpoint", str(checkpoint), "--quiet", "--out", str(tmp_path / "out")]
    assert "nowhere.png does not exist" in refused([*words, "nowhere.png"], capsys)
    (tmp_path / "empty").mkdir()
    assert f"folder {tmp_path / 'empty'} has no images" in refused([*words, str(tmp_path / "empty")], capsys)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert str(broken) in refused([*words, str(broken)], capsys)


def test_a_run_of_other_classes_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    Image.new("L", (8, 8), 1).save(tmp_path / "labels" / "a.png")
    (tmp_path / "val.txt").write_text("a\n")
    words = ["eval", "--checkpoint", str(checkpoint), "--data", f"folder:{tmp_path}"]
    assert (
        f"checkpoint {checkpoint} has 11 classes, the data set folder:{tmp_path} 2: counted in its labels, as it has "
        "no classes.txt; the network's are sky, building, pole, ..." in refused(words, capsys)
    )


def test_a_name_that_is_no_text_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(f"{tmp_path}/b\udcffd")
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "images" / "a.png")
    Image.new("L", (8, 8), 1).save(root / "labels" / "a.png")
    (root / "train.txt").write_text("a\n")
    words = [
        "train",
        f"--data=folder:{root}",
        "--val-split=none",
        "--width=0.01",
        "--iterations=1",
        "--quiet",
    ]
    error = refused([*words, f"--out={tmp_path / 'run'}"], capsys)
    assert "b\\udcffd" in error
    assert "cannot be written as utf-8: rename the file or folder" in error


def test_eval_takes_a_runs_folder_and_asks_for_data(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--quiet", "--device=cpu", "--checkpoint"]
    assert cli.main([*words, str(checkpoint.parent)]) == 0
    assert "mean IU" in capsys.readouterr().out
    trained = load_trained(checkpoint)
    trained.settings = dataclasses.replace(trained.settings, data="")
    save_trained(tmp_path / "a.pt", trained)
    assert "names no data set to score on: give --data" in refused([*words, str(tmp_path / "a.pt")], capsys)


@pytest.mark.parametrize("command", ["eval", "predict", "sheet"])
def test_networks_run_where_the_device_says(
    command: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {
        "eval": [f"--checkpoint={checkpoint}"],
        "predict": ["x.png", f"--checkpoint={checkpoint}"],
        "sheet": ["--data", DATA, "--checkpoints", str(checkpoint), f"--out={tmp_path / 'a.png'}"],
    }[command]
    assert "device must be auto, cpu, cuda or cuda:N, got 'tpu'" in refused(
        [command, *words, "--device=tpu"], capsys
    )
    placed: list[torch.device] = []
    module = f"fcnkern.{'engine.sheets' if command == 'sheet' else 'cli'}.choose_device"
    monkeypatch.setattr(module, lambda name: torch.device("meta"))
    monkeypatch.setattr(Module, "to", lambda self, device: placed.append(device) or self)
    monkeypatch.setattr("fcnkern.engine.predict.find_images", lambda inputs: [])
    assert cli.main([command, *words, "--quiet"]) == 0
    assert torch.device("meta") in placed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_predictions_of_a_gpu_come_back(checkpoint: Path) -> None:
    trained = load_trained(checkpoint)
    trained.model.to("cuda")
    assert predict_image(trained, np.zeros((24, 32, 3), np.uint8)).shape == (24, 32)


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        cli.main(["eval", "--checkpoint", "missing.pt", "--debug"])


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["train", "--crop", "9"], ["train", "--time-limit", "soon"], ["train", "--arch", "unet"]],
)
def test_unknown_words_get_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "usage: fcnkern" in capsys.readouterr().err


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words, "--help"])
    return " ".join(capsys.readouterr().out.split())


def test_help_states_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(["train"], capsys)
    assert "of everything random (default 0)" in text
    assert "0: only at the end (default 0)" in text
    assert "90s, 15m, 2h (default 15m if no end is given)" in text
    assert "write events for TensorBoard, too --seed N" in text


@pytest.mark.parametrize(("experiment", "time"), [("camvid", "45m"), ("sampling", "8m")])
def test_help_of_an_experiment_states_its_own_defaults(
    experiment: str, time: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(["reproduce", experiment], capsys)
    assert f"90s, 15m, 2h (default {time} if no end is given)" in text
    assert "(default scenes)" not in text  # data has to be given


@pytest.mark.parametrize(
    "words", [["train"], ["sheet"], ["data", "check"], ["reproduce", "camvid"], ["convert"]]
)
def test_help_needs_no_characters_beyond_ascii(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(words, capsys).isascii()


def test_values_of_options() -> None:
    assert [values.duration(text) for text in ("90", "90s", "15m", "1.5h")] == [90, 90, 900, 5400]
    assert values.size("240x320") == (240, 320)
    assert values.number_or_none("none") is None
    assert values.numbers("0.75,1") == (0.75, 1.0)
    assert values.strides("32,16") == (32, 16)
    wrong = {
        "1;2": values.numbers,
        "0": values.duration,
        "5d": values.duration,
        "240": values.size,
        "a": values.strides,
    }
    for text, parse in wrong.items():
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            values.argument(parse)(text)


def test_models_lists_every_network_with_its_geometry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert list(rows) == ["name", *list_models()]
    assert rows["fcn8s_vgg16"] == ["134,362,751", "32", "404", "5,", "9", "31", "1", "torchvision"]
    assert rows["fcn32s_caffenet"] == ["56,954,261", "32", "355", "-", "18", "1", "caffe"]
    assert cli.main(["models", "--json", "--classes", "11"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert records["fcn16s_googlenet"]["skip_offsets"] == [0]
    assert records["fcn16s_googlenet"]["final_offset"] == 1
    assert records["fcn32s_googlenet"]["parameters"] == 5_973_552 + 11 * 1025


def test_info_as_a_process() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "fcnkern.cli", "info", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout)["torch"] == str(torch.__version__)


UNREAD = """
import os, sys
from fcnkern.cli import main
from fcnkern.engine.progress import say
end, pipe = os.pipe()
os.close(end)
os.dup2(pipe, int(sys.argv[1]))
say("loss 1")
say("loss 2")
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("stream", "code"), [("1", 141), ("2", 0)])
def test_output_that_nobody_reads_ends_quietly(stream: str, code: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", UNREAD, stream, "models", "--json"], capture_output=True, text=True
    )
    assert run.returncode == code
    assert run.stderr == ("loss 1\nloss 2\n" if stream == "1" else "")
    assert bool(run.stdout) == (stream == "2")


def test_streams_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)
    assert cli.main(["data", "check", "scenes:count=1,size=24x32", "--split", "val"]) == 0


def test_demo_writes_its_picture_and_a_usable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "SCENES", "scenes:count=4,size=32x48")
    monkeypatch.setattr(demo, "SCORED", 4)
    assert cli.main(["demo", "--out", str(tmp_path), "--seconds", "0.5", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "before training: pixel accuracy" in printed
    assert "after training:  pixel accuracy" in printed
    picture = Image.open(tmp_path / "fcnkern-demo.png")
    assert picture.width > 3 * 48
    trained = load_trained(tmp_path / "fcnkern-demo.pt")
    assert trained.iteration >= 1
    assert f"fcnkern predict --checkpoint {tmp_path / 'fcnkern-demo.pt'}" in printed


def test_a_signal_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "SCENES", "scenes:count=4,size=32x48")
    monkeypatch.setattr("fcnkern.engine.trainer.stop_requested", stopping_after(2))
    assert cli.main(["demo", "--out", str(tmp_path), "--quiet"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == f"stopped by signal {signal.SIGTERM:d}; nothing is written\n"
    assert list(tmp_path.iterdir()) == []
