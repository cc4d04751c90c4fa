"""Scoring at native resolution, and near boundaries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fcnkern import cli
from fcnkern.data import IGNORE, preset
from fcnkern.engine import confusion_over, confusions_over, load_trained, predict_image
from fcnkern.metrics import ConfusionMatrix, trimap
from fcnkern.models import FCN
from fcnkern.models.layers import ScoreConv2d
from tests.engine._runs import Images, tiny

SIZES = ((24, 32), (40, 17), (33, 50), (7, 5))


def photographs() -> Images:
    """Images of different sizes, with labels of eleven classes in stripes and some pixels without one."""
    labels = []
    for index, (height, width) in enumerate(SIZES):
        stripes = np.random.default_rng(index).integers(0, 11, 5, np.uint8)
        label = np.repeat(np.repeat(stripes, 10)[:height, None], width, axis=1)
        label[0, :3] = IGNORE
        labels.append(label)
    return Images(labels, 11)


@pytest.fixture(scope="module", params=["fixed", "learned"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = tiny(tmp_path_factory.mktemp("run"), upsampling=request.param)
    trainer.run()
    return trainer.last


def test_every_image_is_scored_in_its_own_size(checkpoint: Path) -> None:
    trained, dataset = load_trained(checkpoint), photographs()
    torch.manual_seed(0)
    for layer in trained.model.modules():  # scores that differ from place to place
        if isinstance(layer, ScoreConv2d):
            torch.nn.init.normal_(layer.weight)
    kinds = []
    expected = [ConfusionMatrix(11) for _ in range(3)]
    for sample in (dataset[index] for index in range(len(SIZES))):
        prediction = torch.from_numpy(predict_image(trained, sample.image))[None]
        target = torch.from_numpy(sample.label)[None]
        assert prediction.shape == target.shape
        kinds.append(len(prediction.unique()))
        for matrix, truth in zip(expected, (target, trimap(target, 1), trimap(target, 3)), strict=True):
            matrix.update(prediction, truth)
    assert max(kinds) > 1
    images = preset(trained.model.preprocess)
    got = confusions_over(trained.model, dataset, images, (1, 3))
    assert [m.tolist() for m in got] == [m.matrix.tolist() for m in expected]
    assert got[0].sum() == sum(h * w - 3 for h, w in SIZES)
    assert got[1].sum() < got[2].sum() < got[0].sum()
    assert confusion_over(trained.model, dataset, images).tolist() == got[0].tolist()


def test_eval_near_boundaries(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--checkpoint", str(checkpoint), "--quiet", "--data", "scenes:count=2,size=24x32"]
    assert cli.main([*words, "--trimap", "1,4,4", "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert list(record["trimap"]) == ["1", "4"]
    assert 0 <= record["trimap"]["1"]["pixel_accuracy"] <= 1
    assert cli.main([*words, "--trimap", "1,4"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[-3].split() == ["pixels", "to", "a", "boundary", "pixel", "accuracy", "mean", "IU"]
    assert table[-1].split()[:2] == ["4", f"{100 * record['trimap']['4']['pixel_accuracy']:.2f}"]
    for bad in ("0", "1,x", ""):
        with pytest.raises(SystemExit):
            cli.main([*words, "--trimap", bad])
        assert "no widths in pixels" in capsys.readouterr().err


def test_scoring_leaves_frozen_batch_statistics_frozen() -> None:
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    model = FCN(body, taps="2", classes=11).train()
    body[1].eval()
    before = {name: module.training for name, module in model.named_modules()}
    confusion_over(model, photographs(), preset("torchvision"), limit=1)
    assert {name: module.training for name, module in model.named_modules()} == before
