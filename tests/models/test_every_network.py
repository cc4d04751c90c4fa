"""Every head on every body, small: it trains, its weights go to a file and back, it predicts and it is exported."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fcnkern import cli
from fcnkern.engine import load_trained
from fcnkern.engine.log import read_log
from fcnkern.models import FCN, create, list_models
from fcnkern.models.registry import parse_name
from fcnkern.weights import load, load_body, save, transfer_network
from tests.engine._runs import tiny

NETWORKS = list_models()
STEPS = 3


def trained(name: str, data: str, out: Path) -> FCN:
    """The network after three steps, as its checkpoint has it: the loss is finite and weights have moved."""
    trainer = tiny(out, arch=name, data=data, crop=(48, 64), iterations=STEPS)
    before = {key: value.detach().clone() for key, value in trainer.model.named_parameters()}
    trainer.run()
    losses = [float(row["loss"]) for row in read_log(out / "log.csv") if row["split"] == "train"]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    model = load_trained(out / "last.pt").model
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    trainable = [key for key, value in model.named_parameters() if value.requires_grad]
    # From end to end; in between, a layer of four channels may have only units that never fire.
    assert moved >= {trainable[0], *(key for key in trainable if key.startswith("score_"))}
    assert len(moved) > 0.7 * len(trainable)
    assert moved <= set(trainable)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FCN]:
    """Every network trained on the embedded scenes, made when it is first asked for."""

    class Made(dict[str, FCN]):
        def __missing__(self, name: str) -> FCN:
            out = tmp_path_factory.mktemp(name)
            self[name] = trained(name, "scenes:count=6,size=48x64", out)
            return self[name]

    return Made()


@pytest.mark.parametrize("name", NETWORKS)
def test_trains_on_the_embedded_scenes(name: str, models: dict[str, FCN]) -> None:
    assert models[name].n_class > 1


@pytest.mark.parametrize("name", NETWORKS)
def test_trains_on_camvid(name: str, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "camvid"
    if not folder.is_dir():
        pytest.skip("needs shared/data/camvid")
    assert trained(name, f"camvid:{folder}", tmp_path).n_class == 11


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_go_to_files_and_back_under_caffes_names_too(
    name: str, models: dict[str, FCN], tmp_path: Path
) -> None:
    model, file, caffe = models[name], tmp_path / "weights.safetensors", tmp_path / "caffe.safetensors"
    save(file, model.state_dict(), preprocess=model.preprocess)
    assert {key: value.tolist() for key, value in load(file).items()} == {
        key: value.tolist() for key, value in model.state_dict().items()
    }
    fresh = create(name, model.n_class, width=0.01).eval()
    load_body(fresh, file)
    assert fresh.preprocess == model.preprocess
    body = {key: value for key, value in model.state_dict().items() if "score" not in key}
    assert body
    for key, value in body.items():
        assert torch.equal(fresh.state_dict()[key], value), key
    assert cli.main(["convert", str(file), str(caffe), "--to=caffe", f"--arch={parse_name(name).body}"]) == 0
    transfer_network(fresh, load(caffe), source="caffe")
    for key, value in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


@pytest.mark.parametrize("name", NETWORKS)
def test_predicts(name: str, models: dict[str, FCN], tmp_path: Path) -> None:
    model = models[name]
    for size in ((1, 1), (37, 52)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            top = model(x).topk(2, dim=1)
        clear = top.values[:, 0] - top.values[:, 1] > 1e-5
        assert torch.equal(model.predict(x)[clear], top.indices[:, 0][clear].to(torch.uint8))
        assert model.predict(x, flip=True, scales=(1.0, 1.5)).shape == (2, *size)
        assert torch.equal(model.predict(x, tile=(64, 64)), model.predict(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_is_exported(name: str, models: dict[str, FCN]) -> None:
    model, x = models[name], torch.randn(1, 3, 37, 52)
    program = torch.export.export(model, (torch.zeros(1, 3, 37, 52),))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)
