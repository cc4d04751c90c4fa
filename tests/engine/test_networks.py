"""Networks on every body are trained, restored, evaluated and used for prediction under their names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fcnkern import cli
from fcnkern.data import open_dataset, presets
from fcnkern.engine import TrainSettings, load_checkpoint, load_trained, predict_image, resume_run
from fcnkern.engine.network import new_network
from fcnkern.engine.trainer import Trainer
from fcnkern.models import FCN, create
from fcnkern.weights import WeightsMismatchError, save
from tests.engine._runs import TINY, losses, tiny
from tests.weights import _caffemodel as write


@pytest.mark.parametrize("arch", ["fcn32s_caffenet", "fcn8s_alexnet", "fcn16s_googlenet", "fcn8s_vgg16"])
def test_train_eval_and_predict_by_name(arch: str, tmp_path: Path) -> None:
    out, image = tmp_path / "run", tmp_path / "image.png"
    words = ["--data", TINY["data"], "--width", "0.01", "--iterations", "2", "--quiet", "--out", str(out)]
    assert cli.main(["train", "--arch", arch, *words]) == 0
    trained = load_trained(out / "last.pt")
    assert trained.settings.arch == arch
    stored = load_checkpoint(out / "last.pt")["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in trained.model.state_dict().items())
    scores = tmp_path / "scores.json"
    assert cli.main(["eval", "--checkpoint", str(out / "last.pt"), "--json", str(scores), "--quiet"]) == 0
    assert 0 <= json.loads(scores.read_text())["pixel_accuracy"] <= 1
    pixels = np.random.default_rng(0).integers(0, 256, (5, 43, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    words = ["--checkpoint", str(out / "last.pt"), "--out", str(tmp_path / "labels"), "--quiet"]
    assert cli.main(["predict", str(image), *words]) == 0
    labels = np.array(Image.open(tmp_path / "labels" / "image.png"))
    assert np.array_equal(labels, predict_image(trained, pixels))


def test_from_coarse_to_fine_on_googlenet(tmp_path: Path) -> None:
    before: str | None = None
    for arch in ("fcn32s_googlenet", "fcn16s_googlenet", "fcn8s_googlenet"):
        trainer = tiny(tmp_path / arch, arch=arch, init_from=before, iterations=1)
        if before is not None:
            coarse = load_trained(before).model
            name = "body.inception_5b.5x5.weight"
            assert torch.equal(trainer.model.get_parameter(name), coarse.get_parameter(name))
            assert not trainer.model.get_parameter(f"score_{trainer.model.taps[0]}.weight").any()
        trainer.run()
        before = str(tmp_path / arch / "last.pt")
    message = r"is a FCN \(GoogLeNet: inception_3b, inception_4e, pool5\), a FCN \(CaffeNet: pool2, fc7\) starts from"
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path / "no", arch="fcn16s_caffenet", init_from=before)


@pytest.mark.parametrize("arch", ["fcn8s", "fcn16s_googlenet"])
def test_the_classifiers_alone(arch: str, tmp_path: Path) -> None:
    """On a body of ImageNet, or another network's; the run goes on so."""
    with pytest.raises(ValueError, match="freeze_body needs a trained body: give weights or init_from"):
        tiny(tmp_path / "no", arch=arch, freeze_body=True)
    tiny(tmp_path / "first", arch=arch, iterations=1).run()
    start = load_trained(tmp_path / "first" / "last.pt").model
    settings = {"arch": arch, "freeze_body": True, "init_from": str(tmp_path / "first" / "last.pt")}
    tiny(tmp_path / "run", **settings, iterations=2).run()
    resume_run(tmp_path / "run" / "last.pt", quiet=True, iterations=4).run()
    model = load_trained(tmp_path / "run" / "last.pt").model
    for ours, before in zip(model.body_parameters(), start.body_parameters(), strict=True):
        assert torch.equal(ours, before)
    assert not torch.equal(model.score_fr.weight, start.score_fr.weight)
    assert len(losses(tmp_path / "run")) == 4
    assert all(parameter.requires_grad for parameter in model.body_parameters())


def test_dropout_is_the_bodys_own_unless_set() -> None:
    def dropout(arch: str, p: float | None) -> list[float]:
        settings = TrainSettings(**{**TINY, "arch": arch, "dropout": p})
        return [m.p for m in new_network(settings, 3).modules() if isinstance(m, torch.nn.Dropout)]

    assert dropout("fcn32s_googlenet", None) == [0.4]
    assert dropout("fcn32s_caffenet", None) == [0.5, 0.5]
    assert dropout("fcn32s_caffenet", 0.0) == [0.0, 0.0]


@pytest.mark.parametrize("preprocess", [None, *presets])
def test_the_preset_of_the_body_is_stored_and_can_be_chosen(preprocess: str | None, tmp_path: Path) -> None:
    words = [
        "--data",
        TINY["data"],
        "--width",
        "0.01",
        "--iterations",
        "1",
        "--quiet",
        "--out",
        str(tmp_path),
    ]
    choice = [] if preprocess is None else ["--preprocess", preprocess]
    assert cli.main(["train", "--arch", "fcn32s_googlenet", *words, *choice]) == 0
    assert load_trained(tmp_path / "last.pt").model.preprocess == (preprocess or "bvlc")


def caffemodel(path: Path, state: dict[str, Tensor]) -> None:
    """Weights under this package's names, as Caffe would write them."""
    layers = dict.fromkeys(key.rpartition(".")[0] for key in state)
    blobs = {name: [state[f"{name}.{kind}"].numpy() for kind in ("weight", "bias")] for name in layers}
    path.write_bytes(
        write.network(
            *(
                write.v2(name.replace(".", "/"), "Convolution", map(write.blob, pair))
                for name, pair in blobs.items()
            )
        )
    )


WRITERS = {
    ".caffemodel": caffemodel,
    ".npz": lambda path, state: np.savez(path, **{key: value.numpy() for key, value in state.items()}),
    ".pth": lambda path, state: torch.save(state, path),
    ".safetensors": lambda path, state: save(path, state),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    ("arch", "from_caffe", "otherwise"),
    [
        ("fcn8s_vgg16", "caffe", "torchvision"),
        ("fcn32s_caffenet", "caffe", "caffe"),
        ("fcn16s_alexnet", "caffe", "torchvision"),
        ("fcn8s_googlenet", "bvlc", "bvlc"),
    ],
)
def test_weights_of_every_body_from_every_format(
    arch: str, from_caffe: str, otherwise: str, suffix: str, tmp_path: Path
) -> None:
    body = create(f"fcn32s_{arch.partition('_')[2]}", width=TINY["width"]).body
    state = {
        name: torch.randn(value.shape)
        for name, value in body.state_dict().items()
        if not name.startswith(("score", "upscore"))
    }
    file, out = tmp_path / f"body{suffix}", tmp_path / "run"
    WRITERS[suffix](file, state)
    words = ["--data", TINY["data"], "--width", "0.01", "--iterations", "1", "--lr", "1e-30", "--quiet"]
    assert cli.main(["train", "--arch", arch, "--weights", str(file), *words, "--out", str(out)]) == 0
    model = load_trained(out / "last.pt").model
    assert model.preprocess == (from_caffe if suffix == ".caffemodel" else otherwise)
    assert all(torch.equal(model.body.state_dict()[name], value) for name, value in state.items())


def test_weights_of_another_body_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "vgg16.safetensors", create("fcn32s_vgg16", width=TINY["width"]).state_dict())
    with pytest.raises(WeightsMismatchError, match=r"vgg16\.safetensors: .*missing: conv1\.7x7_s2\.weight, "):
        tiny(tmp_path, arch="fcn32s_googlenet", weights=str(tmp_path / "vgg16.safetensors"))


def test_classifiers_alone_need_the_whole_body(tmp_path: Path) -> None:
    """Convolutions alone train as ever; frozen, fc6 and fc7 would stay random."""
    state = create("fcn32s_vgg16", width=TINY["width"]).state_dict()
    path = tmp_path / "convolutions.safetensors"
    save(path, {name: value for name, value in state.items() if name.startswith("conv")})
    tiny(tmp_path / "run", weights=str(path))
    with pytest.raises(
        ValueError, match=r"freeze_body .*: weights .*convolutions\.safetensors lack fc6, fc7"
    ):
        tiny(tmp_path / "no", weights=str(path), freeze_body=True)


def own_network(channels: int = 4) -> FCN:
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3, 2, 1), torch.nn.BatchNorm2d(channels))
    return FCN(body, taps="1", classes=11)


def test_a_network_of_the_users_own_is_read_and_resumed_into_one_like_it(tmp_path: Path) -> None:
    train_set = open_dataset(TINY["data"], "train")

    def train(out: Path, iterations: int) -> None:
        settings = TrainSettings(**{**TINY, "iterations": iterations, "schedule": "constant"})
        Trainer(settings, own_network().train(), train_set, None, out, quiet=True).run()

    train(tmp_path / "whole", 4)
    train(tmp_path / "parts", 2)
    last = tmp_path / "parts" / "last.pt"
    for model, what in ((None, "arch fcn8s of its settings"), (own_network(5), "the FCN given")):
        with pytest.raises(
            ValueError, match=rf"last.pt is not of {what}, and a network of your own is to be"
        ):
            load_trained(last, model=model)
    trained = load_trained(last, model=own_network())
    stored = load_checkpoint(last)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in trained.model.state_dict().items())
    resume_run(last, model=own_network(), iterations=4, quiet=True).run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
