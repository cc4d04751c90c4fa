"""A network and a data set that do not belong together: refused, or told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcnkern.engine import TrainSettings, load_trained
from fcnkern.engine.agreement import check_classes, check_images
from fcnkern.engine.network import starting_network
from fcnkern.engine.sheets import comparison
from tests.engine._runs import TINY, Images, tiny


def test_names_that_differ_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    check_classes("net", ["a", "b", "c"], "mine", ["a", "c", "b"])
    told = "net and the data set mine are matched by the numbers of their classes, whose names differ: "
    assert f"warning: {told}class 1 is 'b' and 'c', 2 is 'c' and 'b'\n" in capsys.readouterr().err
    check_classes("net", ["a", "b"], "mine", ["class_0", "class_1"])
    check_classes("net", ["class_0", "class_1"], "mine", ["a", "b"])
    check_classes("net", ["a", "b"], "mine", ["a", "b"])
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="net has 1 classes, the data set mine 2: a, b; the network's are x"):
        check_classes("net", ["x"], "mine", ["a", "b"])


class Prepared(Images):
    """Images for a preset."""

    def __init__(self, preset: str | None) -> None:
        super().__init__([np.zeros((8, 8), np.uint8)])
        self.preset = preset


@pytest.mark.parametrize(
    ("preset", "preprocess", "trained_on", "told"),
    [
        (None, "torchvision", "nyud:X", ""),
        ("nyud-hha", "nyud-hha", "", ""),
        ("nyud-hha", "torchvision", "nyud:X,input=hha,train=trainval", ""),
        ("nyud-hha", "nyud", "nyud:X", "net is for images of colours, the data set mine has HHA"),
        (None, "nyud-hha", "", "net is for images of HHA, the data set mine has colours"),
        ("nyud-rgbd", "torchvision-rgbd", "nyud:X,input=rgbd", ""),
    ],
)
def test_images_of_another_kind_are_told(
    preset: str | None, preprocess: str, trained_on: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_images("net", preprocess, trained_on, "mine", Prepared(preset))
    assert capsys.readouterr().err == (f"warning: {told}\n" if told else "")


def test_images_of_other_channels_are_refused() -> None:
    message = (
        r"net takes images of 3 channels \(preset 'nyud'\), the data set mine has 1 \(preset 'nyud-depth'\)"
    )
    with pytest.raises(ValueError, match=message):
        check_images("net", "nyud", "nyud:X", "mine", Prepared("nyud-depth"))


def test_sheets_and_starts_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(tmp_path, arch="fcn32s", iterations=1).run()
    network, other = load_trained(tmp_path / "last.pt"), Images([np.zeros((8, 8), np.uint8)], 11)
    comparison(other, [network], ["mine"])
    assert "mine and the data set images are matched" in capsys.readouterr().err
    settings = TrainSettings(**{**TINY, "arch": "fcn16s", "init_from": str(tmp_path / "last.pt")})
    starting_network(settings, 11, None, network.classes)
    assert capsys.readouterr().err == ""
    starting_network(settings, 11, None, other.classes)
    assert f"init_from {tmp_path / 'last.pt'} and the data set" in capsys.readouterr().err
    with pytest.raises(ValueError, match="mine takes images of 3 channels"):
        comparison(Prepared("nyud-depth"), [network], ["mine"])
