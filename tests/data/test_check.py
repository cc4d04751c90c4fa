"""``fcnkern data check``: what it counts, what it finds broken, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fcnkern import cli
from fcnkern.data import IGNORE
from fcnkern.data.check import check_data
from tests.data.miniature import make_nyud, make_voc, picture, save, write_list


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, two splits, two sizes."""
    labels = {
        "a": [[0, 0, 1], [0, 0, IGNORE]],
        "b": [[0, 0, 0]],
        "c": [[1, 1, IGNORE], [IGNORE, 1, 1]],
    }
    for seed, (stem, label) in enumerate(labels.items()):
        shape = np.shape(label)
        save(picture(seed)[: shape[0], : shape[1]], tmp_path / "images" / f"{stem}.png")
        save(np.array(label, np.uint8), tmp_path / "labels" / f"{stem}.png")
    write_list(tmp_path / "train.txt", ["a", "b"])
    write_list(tmp_path / "val.txt", ["c"])
    write_list(tmp_path / "classes.txt", ["ground", "sky"])
    return tmp_path


def test_counts(root: Path) -> None:
    report = check_data(f"folder:{root}")
    assert report.sound
    train, val = report.splits
    assert (train.split, val.split) == ("train", "val")
    assert train.classes == ["ground", "sky"]
    assert (train.images, val.images) == (2, 1)
    assert train.pixels.tolist() == [7, 1]
    assert train.in_images.tolist() == [2, 1]
    assert train.void == 1
    assert dict(train.sizes) == {(2, 3): 1, (1, 3): 1}
    assert val.pixels.tolist() == [0, 4]
    assert val.void == 2


def test_text_and_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", f"folder:{root}"]) == 0
    text = capsys.readouterr().out
    assert "train: 2 images" in text
    assert "87.50 %" in text
    assert "sizes, width x height: 3x2 (1), 3x1 (1)" in text
    assert text.endswith("everything could be read\n")
    assert cli.main(["data", "check", f"folder:{root}", "--split", "val", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [split["split"] for split in record["splits"]] == ["val"]
    assert record["splits"][0]["void"] == 2 / 6
    assert record["splits"][0]["classes"]["sky"] == {"pixels": 4, "frequency": 1.0, "images": 1}
    assert record["sound"] is True


def test_every_broken_file_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "images" / "a.png").write_bytes((root / "images" / "a.png").read_bytes()[:50])
    save(np.array([[0, 7, 7]], np.uint8), root / "labels" / "b.png")
    write_list(root / "val.txt", ["c", "c", "x", "y"])
    assert cli.main(["data", "check", f"folder:{root}", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert not record["sound"]
    train, val = record["splits"]
    assert len(train["broken"]) == 2
    assert f"{root / 'images' / 'a.png'} is truncated" in train["broken"][0]
    assert f"{root / 'labels' / 'b.png'} has 2 pixels with values 7, wanted 0..1" in train["broken"][1]
    assert train["images"] == 2
    assert train["classes"]["sky"]["frequency"] is None
    for stem in ("x", "y"):
        image, label = (f"{part} {root / f'{part}s' / stem}.* is missing" for part in ("image", "label"))
        assert f"{image}, {label}" in val["broken"]
    assert len(val["broken"]) == 3
    write_list(root / "val.txt", ["c", "c"])
    assert cli.main(["data", "check", f"folder:{root}"]) == 1
    assert "lists c more than once" in capsys.readouterr().out


def test_names_in_two_splits(root: Path) -> None:
    write_list(root / "val.txt", ["a", "c"])
    report = check_data(f"folder:{root}")
    assert not report.sound
    assert report.shared == ["1 names are both in train and in val: a"]


def test_published_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_voc(tmp_path / "VOC2012", train=["a"], val=["b"], trainval=["a", "b"])
    year = tmp_path / "VOC2012"
    report = check_data(f"voc:{year}")
    assert report.sound  # trainval may hold both
    assert [split.published for split in report.splits] == [1464, 2913, 1449]
    (year / "JPEGImages" / "b.jpg").unlink()
    assert cli.main(["data", "check", f"voc:{year}", "--split", "val"]) == 1
    text = capsys.readouterr().out
    assert "val: 1 images; published: 1449" in text
    assert "b.jpg is missing" in text
    report = check_data(f"nyud:{make_nyud(tmp_path / 'n', test=['5001'])}")
    assert report.splits[0].pixels.sum() + report.splits[0].void == 48


def test_what_is_no_data_set_is_the_users_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", f"imagenet:{tmp_path}"]) == 2
    assert cli.main(["data", "check", f"voc:{tmp_path}"]) == 2
    assert "has no ImageSets/Segmentation; it holds nothing" in capsys.readouterr().err


def test_bounds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "bounds", f"folder:{root}", "--split", "train", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # Every cell of 4 x 4 pixels or more holds a whole image: all of both images becomes ground.
    assert found == {str(factor): pytest.approx((7 / 8 + 0) / 2) for factor in (128, 64, 32, 16, 8, 4)}
    assert cli.main(["data", "bounds", f"folder:{root}", "--split", "train"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["4", "43.75", "%"]
