"""``fcnkern sheet``: its rows are the image, what each network predicts, and the truth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcnkern import cli
from fcnkern.data import open_dataset
from fcnkern.engine import load_trained, predict_image, sheets
from tests.engine._runs import Images, tiny

DATA = "scenes:count=5,size=24x32"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An FCN-32s and an FCN-8s, hardly trained."""
    found = []
    for arch in ("fcn32s", "fcn8s"):
        trainer = tiny(tmp_path_factory.mktemp(arch), arch=arch)
        trainer.run()
        found.append(trainer.last)
    return found


def test_rows(checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, networks = open_dataset(DATA, "val"), [load_trained(path) for path in checkpoints]
    drawn: dict[str, Any] = {}

    def draw(rows: Any, captions: Any, palette: Any, classes: Any, cell_width: int) -> Image.Image:
        drawn.update(rows=rows, captions=captions, palette=palette, classes=classes)
        return Image.new("RGB", (cell_width, 1))

    monkeypatch.setattr(sheets, "sheet", draw)
    assert sheets.comparison(dataset, networks, ["coarse", "fine"], 3, cell_width=64).width == 64
    assert drawn["captions"] == ("image", "coarse", "fine", "truth")
    assert drawn["classes"] == dataset.classes
    assert np.array_equal(drawn["palette"], dataset.palette)
    assert len(drawn["rows"]) == 3
    for (image, coarse, fine, truth), index in zip(drawn["rows"], (0, 2, 4), strict=True):
        sample = dataset[index]
        assert np.array_equal(image, sample.image)
        assert np.array_equal(coarse, predict_image(networks[0], sample.image))
        assert np.array_equal(fine, predict_image(networks[1], sample.image))
        assert np.array_equal(truth, sample.label)
    assert len(sheets.comparison(dataset, networks, ["a", "b"], 99).getbands()) == 3
    assert len(drawn["rows"]) == 5


def test_command(checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "sheet.png"
    words = ["sheet", "--data", DATA, "--checkpoints", *map(str, checkpoints), "--cell", "50", "--quiet"]
    assert cli.main([*words, "--limit", "2", "--out", str(out)]) == 0
    assert "(image, fcn32s, fcn8s, truth)" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.width == 4 * 50 + 5 * 8
        assert picture.height > 2 * 37
    assert cli.main([*words, "--out", str(out.with_suffix(".jpg"))]) == 2
    assert "out must end in .png, got " in capsys.readouterr().err
    assert cli.main([*words, "--limit", "0", "--out", str(out)]) == 2
    assert "limit and cell_width must be at least 1, got 0 and 50" in capsys.readouterr().err


def test_titles_tell_the_networks_apart(checkpoints: list[Path], tmp_path: Path) -> None:
    first, second = checkpoints
    assert titles(first, second) == ["fcn32s", "fcn8s"]
    copy = tmp_path / "later.pt"
    shutil.copy(first, copy)
    assert titles(first, copy) == ["last", "later"]
    same = tmp_path / "x" / "last.pt"
    same.parent.mkdir()
    shutil.copy(first, same)
    assert titles(first, same) == [str(first.with_suffix("")), str(same.with_suffix(""))]


def titles(*paths: Path) -> list[str]:
    return sheets.column_titles([load_trained(path) for path in paths], paths)


def test_refusals(checkpoints: list[Path]) -> None:
    network = load_trained(checkpoints[0])
    with pytest.raises(ValueError, match="mine has 11 classes, the data set images 3"):
        sheets.comparison(Images([np.zeros((8, 8), np.uint8)]), [network], ["mine"])
    with pytest.raises(ValueError, match="no images"):
        sheets.comparison(Images([], 11), [network], ["mine"])
