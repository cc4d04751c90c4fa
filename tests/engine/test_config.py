"""Settings from a file: all of them, the nearest name for an unknown one, and the command line first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fcnkern.cli import main
from fcnkern.engine import TrainSettings, load_checkpoint
from fcnkern.engine.config import read_config, write_config
from fcnkern.engine.settings import SETTINGS
from tests.engine._runs import TINY

OTHERS = TrainSettings(
    **{
        **{
            name: {int: 3, float: 0.25, bool: True, str: 'a "b" \\ ü\n'}[type(known.parse("1"))]
            for name, known in SETTINGS.items()
            if known.choices is None and known.parse in (int, float, str)
        },
        "device": "cpu",
        "clip": None,
        "crop": (10, 20),
        "scale": (0.5, 2.0),
        "time_limit": 1.5,
        "compile": True,
        "tensorboard": True,
        "augment": True,
        "skip_broken": True,
        "elide": True,
        "freeze_body": True,
        "stages": (16, 8),
        "arch": "fcn8s_googlenet",
        "schedule": "cosine",
        "reduction": "batch",
        "sampling_mode": "hard",
        "precision": "bf16",
        "upsampling": "learned",
        "preprocess": "caffe",
    }
)


def test_every_setting_survives_the_file(tmp_path: Path) -> None:
    for name, field in TrainSettings.__dataclass_fields__.items():
        assert getattr(OTHERS, name) != field.default, f"{name} is not tried"
    for settings in (OTHERS, TrainSettings(iterations=2)):
        write_config(tmp_path / "a.toml", settings)
        assert TrainSettings(**read_config(tmp_path / "a.toml")) == settings


def test_values_may_be_the_texts_of_options(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        'time-limit = "15m"\ncrop = "24x32"\nlr = 1\nstages = "32,16"\nrecipe = "online"\nclip = "none"\n'
    )
    assert read_config(file) == {
        "time_limit": 900.0,
        "crop": (24, 32),
        "lr": 1.0,
        "stages": (32, 16),
        "recipe": "online",
        "clip": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentun = 0.9", r"a\.toml: unknown training settings: momentun \(did you mean momentum\?\)"),
        ("lr = = 1", r"a\.toml is not TOML"),
        ("iterations = 2.5", r"iterations is 2.5, wanted what --iterations takes"),
        ("time-limit = 9\ntime_limit = 8", "a.toml: time-limit is set twice, with - and with _"),
        ("augment = 1", r"augment must be true or false"),
        ("lr = true", r"lr must be no boolean"),
        ("crop = [1, 2, 3]", r"crop is '1x2x3'"),
        (f"crop = {'[' * 5000}", r"config .*a\.toml is not TOML"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "a.toml")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("\ufefflr = 1\r\n", encoding="utf-8")
    assert read_config(tmp_path / "a.toml") == {"lr": 1.0}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config .*a\.toml does not exist"):
        read_config(tmp_path / "a.toml")


def test_the_command_line_comes_before_the_file_and_the_file_before_the_recipe(tmp_path: Path) -> None:
    file, out = tmp_path / "a.toml", tmp_path / "run"
    lines = [
        f'data = "{TINY["data"]}"',
        'val-split = "none"',
        "width = 0.01",
        "iterations = 2",
        "augment = true",
    ]
    file.write_text("\n".join([*lines, 'recipe = "heavy"', "momentum = 0.5", "lr = 0.001", ""]))
    words = ["train", "--config", str(file), "--lr=0.002", "--no-augment", "--quiet", "--out", str(out)]
    assert main(words) == 0
    settings = TrainSettings.from_dict(load_checkpoint(out / "last.pt")["settings"])
    assert (settings.lr, settings.momentum, settings.reduction) == (0.002, 0.5, "batch")
    assert (settings.iterations, settings.augment) == (2, False)
    assert TrainSettings(**read_config(out / "config.toml")) == settings
    assert (
        main(["train", "--config", str(out / "config.toml"), "--quiet", "--out", str(tmp_path / "again")])
        == 0
    )
    again = TrainSettings.from_dict(load_checkpoint(tmp_path / "again" / "last.pt")["settings"])
    assert dataclasses.asdict(again) == dataclasses.asdict(settings)
