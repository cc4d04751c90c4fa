"""The networks in standard operations, and as exported programs: for any size of image, without this package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fcnkern.export import to_program
from fcnkern.models import FCN, create, list_models, portable
from tests.models import _caffe
from tests.models._bodies import ResNet

# One row or column of every coarsest map, sizes around multiples of the strides, and larger ones.
SIZES = ((1, 1), (31, 33), (64, 47), (97, 130))


def network(name: str, upsampling: str = "fixed") -> FCN:
    if name == "own":
        model = FCN(ResNet(), ("layer2", "layer3", "layer4"), classes=3)
    else:
        model = create(name, 3, width=1 / 64, upsampling=upsampling)
    _caffe.randomize(model)
    return model.eval()


class Predict(nn.Module):
    """`predict` as a module, which is what torch.export takes."""

    def __init__(self, model: FCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.predict(x)


def check_same(function: Callable[[Tensor], Tensor], model: FCN, sizes: tuple[tuple[int, int], ...]) -> None:
    """Logits to rounding, at every size and for one image and two."""
    for count, (height, width) in enumerate(sizes):
        image = torch.randn(1 + count % 2, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            torch.testing.assert_close(function(image), model(image), rtol=1e-5, atol=2e-5)


def check_standard(program: ExportedProgram) -> None:
    """Only PyTorch's own operators."""
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    operators = [each for each in called if isinstance(each, torch._ops.OpOverload)]
    assert operators
    assert {each.namespace for each in operators} == {"aten"}


@pytest.mark.parametrize("name", [*list_models(), "own"])
def test_the_standard_operations_give_the_same_logits(name: str) -> None:
    model = network(name)
    check_same(lambda image: portable.logits(model, image), model, SIZES)


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn8s_googlenet"])
def test_learned_upsampling_in_standard_operations(name: str) -> None:
    model = network(name, "learned")
    check_same(lambda image: portable.logits(model, image), model, SIZES)


@pytest.mark.parametrize("pad", [1, 70])
def test_padding_around_the_image_in_standard_operations(pad: int) -> None:
    model = FCN(ResNet(), ("layer3", "layer4"), classes=3, pad=pad).eval()
    _caffe.randomize(model)
    check_same(lambda image: portable.logits(model, image), model, SIZES)


def test_torch_export_with_dynamic_sizes() -> None:
    model = network("fcn8s_caffenet")
    sides = {0: Dim("N"), 2: Dim("H", min=32), 3: Dim("W", min=32)}
    program = torch.export.export(model, (torch.zeros(2, 3, 64, 96),), dynamic_shapes=(sides,))
    check_standard(program)
    check_same(program.module(), model, tuple(size for size in SIZES if min(size) > 31))


def test_torch_export_of_predict_with_dynamic_sizes() -> None:
    model = network("fcn8s_alexnet")
    sides = {0: Dim("N"), 2: Dim("H", min=32), 3: Dim("W", min=32)}
    program = torch.export.export(Predict(model), (torch.zeros(2, 3, 64, 96),), dynamic_shapes=(sides,))
    check_standard(program)
    for height, width in ((33, 64), (97, 130)):
        image = torch.randn(1, 3, height, width)
        assert torch.equal(program.module()(image), model.predict(image))


def test_one_program_serves_every_size() -> None:
    model = network("fcn16s_vgg16")
    program = to_program(model, logits=True)
    check_standard(program)
    check_same(program.module(), model, SIZES)


def test_a_body_that_asks_for_the_size() -> None:
    model = network("own")
    with pytest.raises(ValueError, match=r"height = Dim\('height', min=8\)"):
        to_program(model)
    check_same(to_program(model, logits=True, min_size=8).module(), model, SIZES[1:])


def test_replaced_classifiers_are_exported() -> None:
    model = network("fcn16s_vgg16")
    model.score_fr = nn.Conv2d(model.score_fr.in_channels, 3, 3, padding=1)
    channels = model.get_submodule("score_pool4").in_channels
    model.score_pool4 = nn.Sequential(
        nn.Conv2d(channels, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 1, bias=False)
    )
    check_same(to_program(model.eval(), logits=True).module(), model, SIZES)


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        to_program(network("fcn32s_alexnet").train())


def test_a_weight_changed_in_place_is_exported() -> None:
    model = network("fcn32s_alexnet")
    with torch.no_grad():
        model.get_parameter("upscore.weight").normal_(std=0.1)
    check_same(to_program(model, logits=True).module(), model, SIZES[2:])
