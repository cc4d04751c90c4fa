"""Late fusion of colour and HHA: trained, resumed, scored and used; from one file of weights or two checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnkern import cli
from fcnkern.data import open_dataset, preset
from fcnkern.engine import TrainSettings, load_trained, predict_image, with_recipe
from fcnkern.engine.network import starting_network
from fcnkern.engine.optim import parameter_groups
from fcnkern.export import to_program
from fcnkern.models import LateFusion, create, create_late, list_late
from fcnkern.weights import save
from tests.data.miniature import make_nyud
from tests.engine._runs import losses, tiny
from tests.models import _caffe


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_nyud(tmp_path / "nyud", train=["5001", "5002", "5003"], val=["5004", "5005"])


def test_train_resume_eval_predict_and_look(root: Path, tmp_path: Path) -> None:
    data, out = f"nyud:{root},input=color-hha", tmp_path / "run"
    (root / "data" / "hha" / "img_5005.png").write_bytes(b"damaged")
    words = ["train", f"--data={data}", "--arch=fcn8s-late", "--width=0.02", "--quiet"]
    words += ["--lr=0.1", "--warmup=0", "--schedule=constant", "--ema=0.5"]
    words += ["--augment", "--shift=2", "--scale=0.8,1.2", "--skip-broken"]
    assert cli.main([*words, "--iterations=4", f"--out={tmp_path / 'whole'}"]) == 0
    assert cli.main([*words, "--iterations=2", f"--out={out}"]) == 0
    assert cli.main(["train", f"--resume={out}", "--iterations=4", "--quiet"]) == 0
    assert losses(out) == losses(tmp_path / "whole")
    last = out / "last.pt"
    trained = load_trained(last)
    assert isinstance(trained.model, LateFusion)
    assert trained.model.preprocess == "nyud+nyud-hha"
    assert trained.model.color.score_fr.weight.any()
    assert trained.model.hha.score_fr.weight.any()
    make_nyud(root, val=["5004", "5005"])
    scores = tmp_path / "scores.json"
    assert cli.main(["eval", f"--checkpoint={last}", f"--json={scores}", "--quiet"]) == 0
    assert json.loads(scores.read_text())["images"] == 2
    image = root / "data" / "images" / "img_5004.png"
    sample = open_dataset(data, "val")[0]
    for options in ({}, {"flip": True}, {"tile": (400, 400)}):
        more = [f"--{name}" if value is True else f"--{name}=400x400" for name, value in options.items()]
        words = [str(image), f"--checkpoint={last}", f"--out={tmp_path}", "--quiet", *more]
        assert cli.main(["predict", *words]) == 0
        expected = predict_image(trained, sample.image, **options)
        assert np.array_equal(Image.open(tmp_path / "img_5004.png"), expected)
    picture = tmp_path / "sheet.png"
    assert cli.main(["sheet", f"--data={data}", f"--checkpoints={last}", f"--out={picture}", "--quiet"]) == 0
    assert picture.exists()


def test_two_checkpoints_are_fused_each_with_its_own_preset(root: Path, tmp_path: Path) -> None:
    for name, preprocess in (("color", "caffe"), ("hha", "torchvision")):
        words = ["train", f"--data=nyud:{root},input={name}", "--arch=fcn8s", f"--preprocess={preprocess}"]
        words += [
            "--width=0.02",
            "--iterations=3",
            "--lr=0.1",
            "--warmup=0",
            f"--out={tmp_path / name}",
            "--quiet",
        ]
        assert cli.main(words) == 0
    color, hha = (tmp_path / name / "last.pt" for name in ("color", "hha"))
    fused = {"data": f"nyud:{root},input=color-hha", "arch": "fcn8s-late", "width": 0.02}
    trainer = tiny(tmp_path / "late", init_from=f"{color},{hha}", **fused)
    late = trainer.model.eval()
    assert late.preprocess == "caffe+torchvision"
    image = trainer.train_set[0].image
    with torch.no_grad():
        found = late(preset(late.preprocess)(image)[None])
        alone = [
            load_trained(path).model(preset(kind)(part)[None])
            for path, kind, part in ((color, "caffe", image[:, :, :3]), (hha, "torchvision", image[:, :, 3:]))
        ]
    assert min(each.std() for each in alone) > 1e-3
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2, rtol=1e-4, atol=1e-5)
    late.train()
    trainer.run()
    again = tiny(tmp_path / "again", init_from=str(trainer.last), **fused).model
    for name, value in late.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    for init_from, message in (
        (str(color), "one of a network on colour and one of a network on HHA, with a comma between"),
        (f"{color},{hha},{hha}", "with a comma between"),
        (f"{color},{trainer.last}", r"last\.pt is two networks fused late, a FCN8s is one"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(tmp_path / "no", init_from=init_from, **fused)
    with pytest.raises(ValueError, match="is two networks fused late, a FCN8s is one"):
        tiny(tmp_path / "no", init_from=str(trainer.last), data=f"nyud:{root}", arch="fcn8s")


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(**{"iterations": 1, "width": 0.02, "arch": "fcn32s-late", **changes})


@pytest.mark.parametrize(("preprocess", "wanted"), [("caffe", "nyud-hha"), ("torchvision", "torchvision")])
def test_weights_go_into_both_networks(preprocess: str, wanted: str, tmp_path: Path) -> None:
    body = create("fcn32s", 5, width=0.02)
    _caffe.randomize(body)
    save(tmp_path / "w.safetensors", body.state_dict())
    chosen = settings(weights=str(tmp_path / "w.safetensors"), preprocess=preprocess)
    model, report = starting_network(chosen, 5, "nyud+nyud-hha")
    assert "loaded" in report
    for part in (model.color, model.hha):
        assert torch.equal(part.conv3_2.weight, body.conv3_2.weight)
    assert model.preprocess == f"{preprocess}+{wanted}"
    assert f"input: {model.preprocess}" in report
    with pytest.raises(ValueError, match="must be two presets joined by '\\+', got 'caffe'"):
        model.preprocess = "caffe"


def test_new_networks_take_the_data_sets_preset_or_the_chosen_colours() -> None:
    def of(**changes: object) -> str:
        return starting_network(settings(**changes), 5, "nyud+nyud-hha")[0].preprocess

    assert of() == "nyud+nyud-hha"
    assert of(preprocess="caffe") == "caffe+nyud-hha"
    assert of(arch="fcn32s") == "nyud+nyud-hha"  # fused early
    with pytest.raises(ValueError, match=r"arch fcn32s-late takes colour and HHA, .*images have 3"):
        starting_network(settings(), 5)


def test_the_score_layers_of_both_have_their_rate() -> None:
    late = create_late("fcn32s-late", 3, width=0.02)
    groups = parameter_groups(late, 5e-4, score_lr=100.0)
    faster = {id(each) for group in groups if group["lr_mult"] >= 100 for each in group["params"]}
    named = {name for name, parameter in late.named_parameters() if id(parameter) in faster}
    assert named == {f"{part}.score_fr.{kind}" for part in ("color", "hha") for kind in ("weight", "bias")}


def test_stages_with_losses_on_each_stream(root: Path, tmp_path: Path) -> None:
    words = ["train", f"--data=nyud:{root},input=color-hha", "--arch=fcn8s-late", "--width=0.01", "--quiet"]
    words += ["--stages=16,8", "--aux=0.5", "--iterations=1", "--lr=1e-30", f"--out={tmp_path / 'run'}"]
    assert cli.main(words) == 0
    coarse, finest = (load_trained(tmp_path / "run" / stage / "last.pt") for stage in ("16s", "8s"))
    for name, value in coarse.model.state_dict().items():
        if "upscore" not in name:
            torch.testing.assert_close(finest.model.state_dict()[name], value, rtol=1e-6, atol=1e-25)
    assert finest.settings.arch == "fcn8s-late_vgg16"
    assert finest.model.taps == ("pool3", "pool4", "fc7")


def test_the_released_solver_of_late_fusion() -> None:
    values = with_recipe({"recipe": "heavy", "arch": "fcn32s-late", "iterations": 1})
    assert values["lr"] == pytest.approx(1e-12)
    assert with_recipe({"recipe": "heavy", "arch": "fcn16s-late_vgg16"})["lr"] == pytest.approx(1e-14)


def test_names_and_export() -> None:
    assert "fcn16s-late_googlenet" in list_late()
    late = create_late("fcn32s-late", 5, width=1 / 32).eval()
    torch.manual_seed(0)
    for part in (late.color, late.hha):
        _caffe.randomize(part)
        torch.nn.init.zeros_(part.score_fr.bias)
    x = torch.randn(2, 6, 90, 130)
    labels = to_program(late).module()(x)
    assert labels.unique().numel() > 1
    assert (labels == late.predict(x)).float().mean() > 0.999
    for name in ("fcn32s", "fcn64s-late", "fcn32s-late_resnet"):
        with pytest.raises(ValueError, match=f"network '{name}' is unknown, wanted one of fcn32s-late_vgg16"):
            create_late(name)
