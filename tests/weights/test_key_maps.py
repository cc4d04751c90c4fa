"""The tables of names, and renaming by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fcnkern import models
from fcnkern.weights import WeightsMismatchError, convert, load
from fcnkern.weights.convert import identify
from fcnkern.weights.key_maps import ARCHITECTURES, NAMINGS, Naming
from tests.models import _torchfcn
from tests.weights._states import body, state_of

PARAMETERS = {"vgg16": 138_357_544, "caffenet": 60_965_224, "alexnet": 61_100_840, "googlenet": 6_998_552}
PAIRS = [(name, naming) for name, network in ARCHITECTURES.items() for naming in network.namings]


# -------------------------------------------------------------------- tables against the real names


def in_two_parts(features: list[nn.Module], classifier: list[nn.Module]) -> nn.Module:
    return nn.ModuleDict({"features": nn.Sequential(*features), "classifier": nn.Sequential(*classifier)})


def vgg16() -> nn.Module:
    """torchvision's vgg16, built as torchvision does."""
    layers: list[nn.Module] = []
    channels = 3
    for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()] if out else [nn.MaxPool2d(2)]
        channels = out or channels
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
    return nn.ModuleDict(
        {"features": nn.Sequential(*layers), "classifier": nn.Sequential(*head, nn.Linear(4096, 1000))}
    )


def alexnet() -> nn.Module:
    """torchvision's alexnet, built as torchvision does."""
    sizes = [
        (3, 64, 11, 4, 2),
        (64, 192, 5, 1, 2),
        (192, 384, 3, 1, 1),
        (384, 256, 3, 1, 1),
        (256, 256, 3, 1, 1),
    ]
    layers: list[nn.Module] = []
    for index, size in enumerate(sizes):
        layers += [nn.Conv2d(*size), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if index in (0, 1, 4) else []
    head = [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.ModuleDict(
        {"features": nn.Sequential(*layers), "classifier": nn.Sequential(*head, nn.Linear(4096, 1000))}
    )


def shapes_of(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("network", [vgg16, alexnet])
def test_torchvision_names_and_shapes(network) -> None:
    with torch.device("meta"):
        real = network().state_dict()
    assert shapes_of(state_of(network.__name__, "torchvision")) == shapes_of(real)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_those_of_the_published_networks(name: str) -> None:
    assert sum(value.numel() for value in state_of(name, "caffe").values()) == PARAMETERS[name]


def test_vgg16_has_the_names_of_pytorch_fcn_and_of_this_package() -> None:
    body = {key: shape for key, shape in _torchfcn.shapes("FCN32s").items() if "score" not in key}
    assert shapes_of(state_of("vgg16", "pytorch-fcn")) == body
    with torch.device("meta"):
        ours = models.VGG16().state_dict()
    classifier = {"fc8.weight": (1000, 4096, 1, 1), "fc8.bias": (1000,)}
    assert shapes_of(state_of("vgg16", "fcnkern")) == shapes_of(ours) | classifier


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("bvlc_googlenet_imagenet", "googlenet"),
        ("vgg16_conv_torchvision_imagenet", "vgg16"),
        ("alexnet_conv_torchvision_imagenet", "alexnet"),
    ],
)
def test_real_files_have_the_names_and_shapes_of_the_tables(shared: Path, file: str, name: str) -> None:
    path = shared / "weights" / f"{file}.npz"
    if not path.is_file():
        pytest.skip(f"needs shared/weights/{file}.npz")
    state = load(path)
    match = identify(state)
    assert match.architecture.name == name
    wanted = shapes_of(state_of(name, "caffe"))
    convolutions = {key: shape for key, shape in shapes_of(state).items() if len(shape) == 4}
    assert convolutions == {
        key: wanted[key] for key in wanted if key in body(name, "caffe") and "weight" in key
    }
    assert set(state) - set(wanted) == set()


# -------------------------------------------------------------------- renaming


@pytest.mark.parametrize("width", [0.1, 1.5])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_of_other_widths_are_found_too(name: str, width: float) -> None:
    with torch.device("meta"):
        state = models.create(f"fcn32s_{name}", 3, width=width).state_dict()
    assert identify(state).architecture.name == name


@pytest.mark.parametrize("through", NAMINGS)
@pytest.mark.parametrize(("name", "naming"), PAIRS)
def test_there_and_back(name: str, naming: Naming, through: Naming) -> None:
    """The same tensors come back, but for those that the other naming has no name for."""
    state = state_of(name, naming)
    if through not in ARCHITECTURES[name].namings:
        with pytest.raises(
            ValueError, match=f"{name} has no {through} names: .*(another network|VGG16 only)"
        ):
            convert(state, through)
        return
    there = convert(state, through)
    assert there.architecture == name
    assert list(there.state) == [key for key in state_of(name, through) if key in there.state]
    back = convert(there.state, naming)
    lost = set(there.left_out)
    assert lost == ({key for key in state if key not in back.state})
    assert lost <= {"fc8.weight", "fc8.bias", "classifier.6.weight", "classifier.6.bias"}
    assert shapes_of(back.state) == {key: shape for key, shape in shapes_of(state).items() if key not in lost}
    assert all(back.state[key].flatten()[0] == state[key].flatten()[0] for key in back.state)
    absent = ("fc8",) if naming == "pytorch-fcn" else ()
    assert (there.others, there.zero, there.absent) == ((), (), absent)


def test_matrices_become_convolutions_in_the_order_of_channels_rows_columns() -> None:
    small = {
        key: value for key, value in state_of("alexnet", "torchvision").items() if "classifier" not in key
    }
    matrix = torch.arange(4096 * 9216, dtype=torch.float32).reshape(4096, 9216)
    small |= {"classifier.1.weight": matrix, "classifier.1.bias": torch.ones(4096)}
    fc6 = convert(small, "caffe").state["fc6.weight"]
    assert fc6[3, 200, 4, 5] == matrix[3, 200 * 36 + 4 * 6 + 5]


def test_slashes_of_caffe_become_paths_of_modules() -> None:
    there = convert(state_of("googlenet", "caffe"), "fcnkern").state
    assert "inception_3a.3x3_reduce.weight" in there
    assert "conv1.7x7_s2.bias" in there
    assert all("/" not in key for key in there)


def test_heads_others_and_the_wrapper_of_data_parallel() -> None:
    state = {f"module.{key}": value for key, value in body().items()}
    state |= {
        "module.score_fr.weight": torch.zeros(21, 4096, 1, 1),
        "module.upscore.weight": torch.ones(1, 1, 2, 2),
    }
    state |= {"loss1/fc.weight": torch.ones(3, 3)}
    there = convert(state, "fcnkern")
    assert set(there.state) == {*body(), "score_fr.weight", "upscore.weight", "loss1.fc.weight"}
    assert there.others == ("loss1/fc.weight",)
    assert there.absent == ("fc6", "fc7", "fc8")
    assert there.zero == ()
    assert "in no table, kept: loss1/fc.weight" in str(there)
    torchvision = convert(state, "torchvision")
    assert set(torchvision.left_out) == {"module.score_fr.weight", "module.upscore.weight", "loss1/fc.weight"}
    assert "left out, torchvision has no name for it: module.score_fr.weight" in str(torchvision)


def test_constant_scales_of_the_at_once_network() -> None:
    scales = {
        "scale_pool4.weight": torch.full((512,), 0.01),
        "scale_pool3.weight": torch.full((256,), 0.0001),
    }
    there = convert(body() | scales, "fcnkern")
    assert there.left_out == tuple(scales)
    assert set(there.state) == set(body())
    assert set(convert(body() | scales, "caffe").state) == set(body() | scales)
    with pytest.raises(ValueError, match=r"scale_pool4\.weight is not the constant 0\.01"):
        convert(body() | {"scale_pool4.weight": torch.ones(512)}, "fcnkern")


def test_layers_of_zeros_are_reported() -> None:
    state = body() | {key: torch.zeros(64, 3, 3, 3) for key in ("conv1_1.weight",)}
    there = convert(state, "torchvision")
    assert there.zero == ("conv1_1",)
    assert "warning, all zero: conv1_1" in str(there)


def test_weights_of_another_network_list_all_that_differs() -> None:
    with pytest.raises(WeightsMismatchError) as error:
        convert(
            body("alexnet") | {"extra.weight": torch.ones(1)},
            "caffe",
            architecture="caffenet",
            source="net.npz",
        )
    assert error.value.missing == ()
    assert error.value.misshapen["conv1.weight"] == ((64, 3, 11, 11), (96, 3, 11, 11))
    assert set(error.value.misshapen) == {
        *(f"conv{index}.weight" for index in range(1, 6)), "conv1.bias", "conv2.bias", "conv4.bias"
    }  # fmt: skip
    assert error.value.unexpected == ("extra.weight",)
    assert str(error.value).startswith(
        "net.npz as caffenet: not the weights of this network; misshapen: conv1.weight has"
    )
    partial = body("googlenet", "caffe")
    del partial["inception_4c/5x5.bias"]
    with pytest.raises(WeightsMismatchError, match=r"as googlenet: .*; missing: inception_4c/5x5\.bias$"):
        convert(partial, "fcnkern")


@pytest.mark.parametrize(
    ("state", "arguments", "message"),
    [
        ({"a.weight": torch.ones(1)}, {}, r"none of the known networks \(of vgg16, .*\); its layers are a$"),
        ({"a.weight": torch.ones(1)}, {"architecture": "vgg16"}, "missing: conv1_1.weight, .* unexpected: a.weight$"),
        ({"conv3.weight": torch.ones(1, 1)}, {}, "none of the known networks"),
        (models.create("fcn32s_alexnet", width=0.01).state_dict(), {}, "alexnet or caffenet, name the one"),
        ({"conv1.weight": torch.ones(8, 3, 5, 5)}, {}, "none of the known networks"),
        ({"fc8.weight": torch.ones(1).expand(1000, 4096)}, {}, "alexnet or caffenet or vgg16, name the one"),
        ({}, {"architecture": "resnet"}, "architecture must be one of vgg16, .*, got 'resnet'"),
        ({}, {"naming": "keras"}, "naming must be one of fcnkern, .*, got 'keras'"),
    ],
)  # fmt: skip
def test_bad_requests(state: dict[str, Tensor], arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(state, **{"naming": "caffe"} | arguments)
