"""What operations do to coordinates and sizes, seen below the module system."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

from fcnkern.models import FCN8s
from fcnkern.models.geometry import CoordinateMap
from fcnkern.models.layers import CaffeLRN
from fcnkern.models.tracing import Traced, trace
from tests.models._bodies import ResNet


def place(module: nn.Module, channels: int = 4) -> Traced:
    return trace(module, lambda body, x: {"out": body(x)}, channels)["out"]


def at(stride: int | str, shift: int | str) -> CoordinateMap:
    return CoordinateMap(1 / Fraction(stride), Fraction(shift))


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


LAYERS = {  # module, coordinate map, receptive field
    "conv": (nn.Conv2d(4, 2, 5, 3, 1), at(3, "-1/3"), 5),
    "dilated": (nn.Conv2d(4, 2, 3, 2, 4, dilation=4), at(2, 0), 9),
    "grouped": (nn.Conv2d(4, 4, 3, padding="same", groups=2), at(1, 0), 3),
    "deconv": (nn.ConvTranspose2d(4, 2, 4, 2, 1), at("1/2", "1/2"), None),
    "deconv-odd": (nn.ConvTranspose2d(4, 2, 3, 2, 1, output_padding=1), at("1/2", 0), None),
    "max": (nn.MaxPool2d(3, 2), at(2, "-1/2"), 3),
    "max-ceil": (nn.MaxPool2d(2, 2, ceil_mode=True), at(2, "-1/4"), 2),
    "max-ceil-pad": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), at(2, 0), 3),
    "max-default-stride": (nn.MaxPool2d(3), at(3, "-1/3"), 3),
    "average": (nn.AvgPool2d(3, 1, 1, True), at(1, 0), 3),
    "average-default": (nn.AvgPool2d(2), at(2, "-1/4"), 2),
    "zero-pad": (nn.ZeroPad2d((1, 2, 3, 5)), at(1, 3), 1),
    "mirror-pad": (nn.ReflectionPad2d(2), at(1, 2), 1),
    "edge-pad": (nn.ReplicationPad2d((0, 1, 0, 1)), at(1, 0), 1),
}
POINTWISE = {
    "relu": nn.ReLU(inplace=True),
    "lrn": nn.LocalResponseNorm(5),
    "caffe-lrn": CaffeLRN(),
    "batch-norm": nn.BatchNorm2d(4),
    "group-norm": nn.GroupNorm(2, 4),
    "dropout": nn.Sequential(nn.Dropout(), nn.Dropout2d()),
    "identity": nn.Identity(),
    "hardswish": nn.Hardswish(inplace=True),
    "prelu": nn.PReLU(),
    "channel-shuffle": nn.ChannelShuffle(2),
    "residual": Lambda(lambda x: x + T.silu(x)),
    "in-place": Lambda(lambda x: T.relu(x).mul_(2).add_(x)),
    "halves": Lambda(lambda x: torch.cat(x.chunk(2, dim=1)[::-1], dim=1)),
    "squeeze-excite": Lambda(lambda x: x * T.adaptive_avg_pool2d(x, 1).sigmoid()),
    "mean-scale": Lambda(lambda x: x / x.mean((2, 3), keepdim=True)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    module, expected, field = LAYERS[name]
    found = place(module)
    assert (found.rows.map, found.rows.field) == (expected, field)
    for height, width in ((9, 14), (10, 11), (12, 13), (15, 23)):
        with torch.no_grad():
            size = module(torch.zeros(1, 4, height, width)).shape[2:]
        assert (found.rows.sizes(height), found.columns.sizes(width)) == tuple(size)


@pytest.mark.parametrize("name", POINTWISE)
def test_what_leaves_coordinates_alone(name: str) -> None:
    shifted = nn.Sequential(nn.Conv2d(4, 4, 3, 2), POINTWISE[name])
    found = place(shifted)
    assert (found.rows.map, found.columns.map, found.rows.field) == (at(2, "-1/2"), at(2, "-1/2"), 3)
    assert found.channels == 4


def test_rows_and_columns_are_kept_apart() -> None:
    found = place(nn.Conv2d(4, 1, (3, 7), (1, 2), (1, 0)))
    assert (found.rows.map, found.rows.field) == (at(1, 0), 3)
    assert (found.columns.map, found.columns.field) == (at(2, "-3/2"), 7)


def test_the_widest_of_aligned_branches_gives_the_field() -> None:
    branches = (nn.Conv2d(4, 1, 1), nn.Conv2d(4, 1, 7, padding=3), nn.Conv2d(4, 1, 3, padding=1))
    joined = nn.Module()
    joined.branches = nn.ModuleList(branches)
    found = trace(joined, lambda body, x: {"out": torch.cat([b(x) for b in body.branches], 1)}, 4)["out"]
    assert (found.channels, found.rows.field, found.rows.map) == (3, 7, at(1, 0))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: T.interpolate(x, scale_factor=2), "upsample_nearest2d"),
        (lambda x: x.flip(2), "flip"),
        (lambda x: x.transpose(2, 3), "transpose"),
        (lambda x: x[:, :, 1:], "slice"),
        (lambda x: x + x.roll(1, 2), "roll"),
        (lambda x: x.flatten(1), "view"),
        (lambda x: [x], "no tensor but a list"),
        (lambda x: torch.ones(1, 1, 2, 2), "for the image as a whole"),
        (lambda x: x + T.max_pool2d(x, 2, 1, padding=0)[:, :, :1, :1], "slice"),
    ],
)
def test_what_has_no_place_is_refused_with_the_operation(
    function: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=f"tap 'out' has no place on the image: .*{message}"):
        place(Lambda(function))


def test_a_body_that_looks_at_its_values_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ValueError, match=r"Lambda does not run on an image of 1x4x1056x1184 on the meta device"
    ):
        place(Lambda(lambda x: x if x.sum() > 0 else -x))


def test_tracing_leaves_the_module_as_it_was() -> None:
    model = ResNet().train()
    model.layer2.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trace(model, lambda body, x: {"out": body.layer3(body.layer2(body.layer1(body.stem(x))))})
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.device.type == "cpu" for value in model.state_dict().values())


def test_inference_mode_changes_nothing() -> None:
    plain = FCN8s(3, 1 / 16)
    with torch.inference_mode():
        network = FCN8s(3, 1 / 16)
    assert network.alignment == plain.alignment
