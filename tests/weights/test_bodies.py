"""Real and written files into the bodies of the paper: names, numbers, and what the networks then compute."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcnkern import models
from fcnkern.weights import WeightsMismatchError, load, load_body, transfer_body
from fcnkern.weights.key_maps import ARCHITECTURES, module_name
from tests.models import _torchfcn
from tests.weights import _caffemodel as write
from tests.weights._googlenet import activations
from tests.weights._states import body


def modules_of(architecture: str) -> nn.Module:
    """The convolutions of a network under this package's names, and nothing else. On the meta device."""
    root = nn.Module()
    with torch.device("meta"):
        for layer in ARCHITECTURES[architecture].layers:
            if layer.dense:
                continue
            *path, last = module_name(layer.name).split(".")
            parent = root
            for name in path:
                if not hasattr(parent, name):
                    parent.add_module(name, nn.Module())
                parent = parent.get_submodule(name)
            out, channels, kernel, _ = layer.shape
            parent.add_module(last, nn.Conv2d(channels, out, kernel))
    return root


@pytest.mark.parametrize("name", ["CaffeNet", "AlexNet", "GoogLeNet", "VGG16"])
def test_bodies_have_the_names_and_shapes_of_the_tables(name: str) -> None:
    with torch.device("meta"):
        ours = getattr(models, name)().state_dict()
    table = {module_name(layer.name): layer.shape for layer in ARCHITECTURES[name.lower()].layers}
    wanted = {f"{layer}.weight": shape for layer, shape in table.items() if f"{layer}.weight" in ours}
    assert {key: tuple(value.shape) for key, value in ours.items() if key.endswith("weight")} == wanted
    assert set(table) - {key.removesuffix(".weight") for key in wanted} <= {"fc8", "loss3.classifier"}


def test_a_v1_caffemodel_fills_vgg16(tmp_path: Path) -> None:
    """As VGG's own file is: V1 layers, legacy shapes, inner products (and a classifier without a place)."""
    state = {key: value for key, value in _torchfcn.random_state("FCN32s").items() if "score" not in key}
    layers = []
    for name in _torchfcn.BODY:
        weight, bias = (state[f"{name}.{kind}"].numpy() for kind in ("weight", "bias"))
        dense = name.startswith("fc")
        blobs = [
            write.blob(weight.reshape(len(weight), -1) if dense else weight, old=True),
            write.blob(bias, old=True),
        ]
        layers.append(write.v1(name, write.INNER_PRODUCT if dense else write.CONVOLUTION, blobs))
    eight = [
        write.blob(np.ones((10, 256), np.float32), old=True),
        write.blob(np.ones(10, np.float32), old=True),
    ]
    (tmp_path / "vgg.caffemodel").write_bytes(
        write.network(*layers, write.v1("fc8", write.INNER_PRODUCT, eight))
    )
    model = models.FCN8s(3, 1 / 16)
    report = load_body(model, tmp_path / "vgg.caffemodel")
    assert (report.loaded, report.unused) == (tuple(_torchfcn.BODY), ("fc8.weight", "fc8.bias"))
    assert model.preprocess == report.preprocess == "caffe"
    assert all(torch.equal(model.get_parameter(key).detach(), value) for key, value in state.items())
    assert not model.score_fr.weight.any()
    model.preprocess = "bvlc"
    assert load_body(model, tmp_path / "vgg.caffemodel").preprocess == "bvlc"


@pytest.mark.parametrize("wrapped", [False, True])
def test_caffes_names_go_to_paths_of_modules(wrapped: bool) -> None:
    model = modules_of("googlenet").to_empty(device="cpu")
    state: dict[str, Tensor] = body("googlenet", "caffe") | {"loss3/classifier.weight": torch.ones(2)}
    outer = model
    if wrapped:  # as an FCN on a body is
        outer = nn.Module()
        outer.add_module("body", model)
        outer.add_module("score_fr", nn.Conv2d(1, 1, 1))
    report = transfer_body(outer, state, source="state")
    assert report.unused == ("loss3/classifier.weight",)
    assert len(report.loaded) == 57
    for layer in ARCHITECTURES["googlenet"].layers[:-1]:
        parameter = model.get_parameter(f"{module_name(layer.name)}.weight")
        assert (parameter == state[f"{layer.name}.weight"]).all()


@pytest.mark.parametrize("name", ["googlenet", "caffenet"])
def test_what_is_no_chain_is_not_narrowed(name: str) -> None:
    model = modules_of(name)
    model.width = 0.5
    first = next(iter(ARCHITECTURES[name].layers))
    state = body(name, "caffe")
    state[f"{first.name}.weight"] = torch.ones(2 * first.shape[0], *first.shape[1:])
    with pytest.raises(WeightsMismatchError) as error:
        transfer_body(model, state, source="state")
    assert set(error.value.misshapen) == {f"{module_name(first.name)}.weight"}


def own_body() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False)
    )


def test_statistics_of_a_body_come_along(tmp_path: Path) -> None:
    body = own_body()
    body(torch.randn(4, 3, 9, 9))
    torch.save(body.state_dict(), tmp_path / "body.pth")
    model = models.FCN(own_body(), taps="3", classes=2)
    report = load_body(model, tmp_path / "body.pth")
    assert report.loaded == ("0", "1", "3")
    wanted = {key: value for key, value in body.state_dict().items() if value.is_floating_point()}
    torch.testing.assert_close({key: model.body.state_dict()[key] for key in wanted}, wanted, rtol=0, atol=0)
    del wanted["3.running_var"]
    with pytest.raises(WeightsMismatchError, match=r"missing: 3\.running_var"):
        transfer_body(model, wanted, source="x")


@pytest.mark.parametrize("attribute", ["net", "body", "module"])
@pytest.mark.parametrize("wrapper", ["", "body.", "module.body."])
def test_a_body_whose_layers_are_called_like_a_wrapper(attribute: str, wrapper: str) -> None:
    def trunk() -> nn.Sequential:
        return nn.Sequential(OrderedDict({attribute: own_body()}))

    weights = trunk().state_dict()
    model = models.FCN(trunk(), taps=f"{attribute}.3", classes=2)
    transfer_body(model, {f"{wrapper}{key}": value for key, value in weights.items()}, source="x")
    torch.testing.assert_close(model.body.state_dict(), weights, rtol=0, atol=0)


def test_the_network_computes_caffes_activations(shared: Path) -> None:
    """The GoogLeNet of this package, from the file, against Caffe's own blobs and plain functions in fp64."""
    path = shared / "weights" / "bvlc_googlenet_imagenet.npz"
    if not path.is_file():
        pytest.skip("needs shared/weights/bvlc_googlenet_imagenet.npz")
    model = models.GoogLeNet().eval()
    assert load_body(model, path).preprocess == model.preprocess == "bvlc"
    caffe = load(path.with_name("googlenet_caffe_activations.npz"))
    with torch.no_grad():
        maps = model.features(caffe["data"])
    last = caffe["inception_5b/output"]
    assert (maps["pool5"] - last).abs().max() <= 2e-5 * last.abs().max()
    exact = activations({key: value.double() for key, value in load(path).items()}, caffe["data"].double())
    for name in ("inception_3b", "inception_4e"):
        want = exact[f"{name}/output"]
        assert (maps[name] - want).abs().max() <= 4e-6 * want.abs().max()
