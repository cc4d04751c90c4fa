"""Shift-and-stitch and rarefaction give the same dense outputs, and the network's own where it has one."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fcnkern.models import (
    FCN,
    VGG16,
    AlexNet,
    CaffeNet,
    GoogLeNet,
    convolutionalize,
    rarefy,
    shift_and_stitch,
)
from fcnkern.models.tracing import trace
from tests.models._bodies import Residual, ResNet
from tests.models._classifiers import AlexNetLike, Global


def valid() -> nn.Sequential:
    """Stride 12, of 3, 2 and 2; only the first layer pads; kernels of both parities, a dilation, unequal sides."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, 3, 2),
        nn.LeakyReLU(),
        nn.MaxPool2d((2, 3), 2),
        nn.Sequential(nn.Conv2d(4, 6, 2, 1, 0, 2), nn.BatchNorm2d(6)),
        nn.AvgPool2d(3, 2),
        nn.Tanh(),
        nn.Conv2d(6, 5, (3, 2)),
    )


def rounding_up() -> nn.Sequential:
    """Stride 8: pools that round up, as Caffe's, without padding."""
    pools = [nn.MaxPool2d(kernel, 2, ceil_mode=True) for kernel in (2, 3, 2)]
    return nn.Sequential(nn.Conv2d(3, 4, 3), pools[0], nn.Conv2d(4, 5, 2), pools[1], pools[2])


def padded() -> nn.Sequential:
    """Stride 8: every layer pads, pools round up."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.AvgPool2d(2, 1, 1),
        nn.MaxPool2d(2, 2, 1, ceil_mode=True),
        nn.Conv2d(4, 5, 3, padding=2, dilation=2),
    )


def branched() -> nn.Module:
    """Stride 4: a sum beside a projection."""
    return nn.Sequential(Residual(3, 4, 2), Residual(4, 4, 2))


class Reused(nn.Module):
    """Stride 4: one pool called twice, and maps of one stride joined."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 2)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """N,3,H,W -> N,8,h,w."""
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(self.conv2(x))
        return torch.cat([x, x.tanh()], dim=1)


NETWORKS = {
    "valid": valid,
    "rounding up": rounding_up,
    "reused": Reused,
    "padded": padded,
    "branched": branched,
}


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    net = build().double()
    with torch.no_grad():
        net(images(70, 80))  # batch statistics
    return net.eval()


def images(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


def stride_of(net: nn.Module) -> int:
    return trace(net, lambda module, x: {"out": module(x)})["out"].rows.stride


def equal(ours: Tensor, theirs: Tensor) -> None:
    assert ours.numel()
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [(67, 72), (70, 61), (73, 96)])
@pytest.mark.parametrize("to", [1, 2, 4])
@pytest.mark.parametrize("name", ["valid", "rounding up", "reused"])
@torch.no_grad()
def test_both_are_equal_everywhere_where_only_the_first_layer_pads(
    name: str, to: int, size: tuple[int, int]
) -> None:
    net, x = made(NETWORKS[name]), images(*size)
    equal(rarefy(net, to)(x), shift_and_stitch(net, x, to))


@pytest.mark.parametrize("size", [(67, 72), (70, 61)])
@pytest.mark.parametrize("to", [1, 2])
@pytest.mark.parametrize("name", ["padded", "branched"])
@torch.no_grad()
def test_both_are_equal_where_the_receptive_field_lies_in_the_image(
    name: str, to: int, size: tuple[int, int]
) -> None:
    net, x = made(NETWORKS[name]), images(*size)
    rare, stitched = rarefy(net, to), shift_and_stitch(net, x, to)
    dense = rare(x)
    assert dense.shape == stitched.shape
    place = trace(rare, lambda module, x: {"out": module(x)})["out"]
    inner = []
    for path, side, pixels in zip((place.rows, place.columns), dense.shape[2:], size, strict=True):
        assert path.field is not None
        centres = [(at - path.map.shift) / path.map.scale for at in range(side)]
        half = (path.field - 1) / 2
        inside = [at for at, centre in enumerate(centres) if half <= centre <= pixels - 1 - half]
        inner.append(slice(inside[0], inside[-1] + 1))
    equal(dense[:, :, inner[0], inner[1]], stitched[:, :, inner[0], inner[1]])
    assert not torch.allclose(dense, stitched)


@pytest.mark.parametrize("size", [(67, 72), (68, 61), (62, 80)])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_networks_own_outputs_are_among_them(name: str, size: tuple[int, int]) -> None:
    net, x = made(NETWORKS[name]), images(*size)
    stride, own = stride_of(net), net(x)
    for to in [each for each in (1, 2, stride) if stride % each == 0]:
        step = stride // to
        equal(rarefy(net, to)(x)[:, :, ::step, ::step], own)
        assert torch.equal(shift_and_stitch(net, x, to)[:, :, ::step, ::step], own)


@pytest.mark.parametrize("body", [VGG16, AlexNet, CaffeNet, GoogLeNet])
@torch.no_grad()
def test_bodies_of_the_paper(body: type[nn.Module]) -> None:
    net = made(lambda: body(width=1 / 64))
    x = images(40, 33)[:1]
    for to in (16, 8):
        step = 32 // to
        rare = rarefy(net, to)(x)
        equal(rare[:, :, ::step, ::step], net(x))
        assert rare.shape == shift_and_stitch(net, x, to).shape


def test_a_rarefied_body_carries_a_head() -> None:
    body = rarefy(VGG16(width=1 / 64), 8)
    with pytest.raises(
        ValueError, match=r"begin 5 pixels inside the image .* with pad=5 every size is covered"
    ):
        FCN(body, ("drop7",), classes=3)
    net = FCN(body, ("drop7",), classes=3, pad=5)
    assert (net.alignment.stride, net.alignment.field) == (8, 404)
    loss = net.loss(torch.randn(1, 3, 30, 41), torch.zeros(1, 30, 41, dtype=torch.int64))
    assert loss.item() == pytest.approx(math.log(3), rel=1e-6)


@torch.no_grad()
def test_a_classifier_slides_over_every_pixel() -> None:
    for build, side, field in ((AlexNetLike, 79, 79), (Global, 21, 21)):
        theirs = made(build)
        x = images(side + 4, side + 3)
        dense = rarefy(convolutionalize(theirs, (3, side, side)))(x)
        assert dense.shape[2:] == (5, 4)
        for row, column in ((0, 0), (1, 2), (4, 3)):
            crop = x[:, :, row : row + field, column : column + field]
            equal(dense[:, :, row, column], theirs(crop))


def test_weights_keep_their_names_and_the_network_its_layers() -> None:
    net = padded()
    before = copy.deepcopy(net)
    rare = rarefy(net)
    assert list(rare.state_dict()) == list(net.state_dict())
    assert rare.get_submodule("0").stride == (1, 1)
    assert rare.get_submodule("2").dilation == (4, 4)
    assert repr(net) == repr(before)
    nn.init.zeros_(rare.get_parameter("0.weight"))
    assert torch.equal(net[0].weight, before[0].weight)


def test_gradients_flow_through_both_alike() -> None:
    net = made(valid)
    x, own = images(64, 59), dict(net.named_parameters())
    rare = rarefy(net, 4)
    found = torch.autograd.grad(rare(x).square().sum(), list(dict(rare.named_parameters()).values()))
    expected = torch.autograd.grad(shift_and_stitch(net, x, 4).square().sum(), list(own.values()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_rarefied_network_is_pickled() -> None:
    rare, x = rarefy(made(padded)), images(20, 20)
    assert torch.equal(pickle.loads(pickle.dumps(rare))(x), rare(x))


CONV = nn.Conv2d(3, 3, 1)


@pytest.mark.parametrize(
    ("net", "to", "message"),
    [
        (rounding_up(), 3, "to must divide the network's stride of 8, got 3"),
        (rounding_up(), 16, "to must divide the network's stride of 8, got 16"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1)), 1, r"0 \(AdaptiveAvgPool2d\) is no convolution"),
        (nn.Sequential(CONV, CONV), 1, r"0 \(Conv2d\) must pad by a number of zeros and be called once"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding="same")), 1, "must pad by a number of zeros"),
        (nn.Sequential(nn.AvgPool2d(2, ceil_mode=True)), 1, "means over fewer values at the border"),
        (ResNet(), 1, "the layers of ResNet cannot be told from its forward"),
    ],
)
def test_what_cannot_be_spread_is_refused(net: nn.Module, to: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rarefy(net, to)


@pytest.mark.parametrize("to", [3, 0, -1])
def test_other_strides_cannot_be_stitched(to: int) -> None:
    with pytest.raises(ValueError, match=f"to must divide the network's stride of 8, got {to}"):
        shift_and_stitch(rounding_up(), torch.zeros(1, 3, 40, 40), to)
