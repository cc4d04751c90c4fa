"""Kernels, crops and covered sizes: the published numbers, and a ramp that no misplaced pixel survives."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from fcnkern.models import FCN, VGG16, AlexNet, Body, CaffeNet, GoogLeNet
from fcnkern.models.alignment import Alignment, align, smallest_pad
from fcnkern.models.body import Taps
from fcnkern.models.tracing import Traced, trace
from tests.models._bodies import Chain, Mean, ResNet

SMALL = 1 / 64


def traced(body: nn.Module, names: tuple[str, ...] = (), channels: int = 3) -> dict[str, Traced]:
    names = names or body.tap_names
    return trace(body, Taps(body, names), channels)


def aligned(body: Body, taps: int) -> Alignment:
    return align({name: place for name, place in traced(body).items() if name in body.tap_names[-taps:]})


@pytest.mark.parametrize("pad", [81, 97, 100, 128])
@pytest.mark.parametrize(("taps", "skips", "final"), [(1, [], 81), (2, [5], 73), (3, [5, 9], 69)])
def test_vgg16(pad: int, taps: int, skips: list[int], final: int) -> None:
    found = aligned(VGG16(SMALL, pad), taps)
    assert [step.offset for step in found.steps] == skips
    assert found.final_offset == pad - final
    assert [step.kernel for step in (*found.steps, found.final)] == [4] * len(skips) + [64 >> len(skips)]


@pytest.mark.parametrize("body", [CaffeNet, AlexNet])
@pytest.mark.parametrize(("taps", "skips"), [(1, []), (2, [5]), (3, [5, 10])])
def test_alexnets(body: type[CaffeNet], taps: int, skips: list[int]) -> None:
    found = aligned(body(SMALL), taps)
    assert [step.offset for step in found.steps] == skips
    assert (found.final_offset, found.final.kernel, found.min_size) == (18, (64 >> len(skips)) - 1, 1)


@pytest.mark.parametrize("pad", [3, 100])
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_googlenet(pad: int, taps: int) -> None:
    found = aligned(GoogLeNet(SMALL, pad), taps)
    assert [(step.offset, step.kernel) for step in found.steps] == [(0, 3)] * (taps - 1)
    assert (found.final_offset, found.final.kernel) == (pad - 2, (64 >> (taps - 1)) - 1)
    assert found.min_size == {3: 31, 100: 1}[pad]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (VGG16, {"pool3": (44, 8), "pool4": (100, 16), "fc7": (404, 32)}),
        (CaffeNet, {"pool1": (19, 8), "pool2": (67, 16), "fc7": (355, 32)}),
        (GoogLeNet, {"inception_3b": (91, 8), "inception_4e": (427, 16), "pool5": (715, 32)}),
    ],
)
def test_receptive_fields_and_strides(body: type[Body], expected: dict[str, tuple[int, int]]) -> None:
    found = {name: (place.rows.field, place.rows.stride) for name, place in traced(body(SMALL)).items()}
    assert found == expected


def test_receptive_field_of_googlenet_with_its_average_pooling_is_the_papers() -> None:
    classifier = nn.Sequential(GoogLeNet(SMALL), nn.AvgPool2d(7, stride=1))
    assert traced(classifier, ("1",))["1"].rows.field == 907


@pytest.mark.parametrize("n", [500, 375, 224, 1])
def test_sizes_of_vgg16(n: int) -> None:
    expected = {500: (88, 44, 16), 375: (72, 36, 12), 224: (53, 27, 8), 1: (25, 13, 1)}[n]
    assert tuple(place.rows.sizes(n) for place in traced(VGG16(SMALL)).values()) == expected


def test_97_is_the_smallest_pad_of_vgg16_for_each_head() -> None:
    places = traced(VGG16(SMALL, pad=1))
    names = list(places)
    pads = [smallest_pad({name: places[name] for name in names[-taps:]}) for taps in (1, 2, 3)]
    assert [pad + 1 for pad in pads if pad is not None] == [97, 97, 97]


def averages(body: nn.Module) -> None:
    """Put what gives every pixel of a field a positive share in the place of maxima and weights."""
    for module in list(body.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, mean)
    for parameter in body.parameters():
        nn.init.constant_(parameter, 1.0 / max(1, parameter[0].numel()) if parameter.dim() > 1 else 0.0)


@pytest.mark.parametrize(("body", "size"), [(VGG16, 450), (CaffeNet, 420), (GoogLeNet, 780)])
def test_gradients_reach_exactly_the_receptive_field(body: type[Body], size: int) -> None:
    model = body(SMALL).double().eval()
    averages(model)
    place = traced(model)[model.tap_names[-1]].rows
    image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    out = model(image)
    middle = out.shape[2] // 2
    (gradient,) = torch.autograd.grad(out[0, :, middle, middle].sum(), image)
    touched = gradient[0].abs().sum(dim=(0, 1)).nonzero().flatten()
    centre = (middle - place.map.shift) / place.map.scale
    assert place.field is not None
    first = centre - Fraction(place.field - 1, 2)
    assert (touched[0].item(), touched[-1].item()) == (first, first + place.field - 1)
    assert len(touched) == place.field


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_a_ramp_comes_back_where_it_was(seed: int, taps: int) -> None:
    """Every layer averages and every classifier is the identity: each tap must give the column's number itself."""
    body = Chain(seed)
    names = ("stage1", "stage2", "stage3")[-taps:]
    pad = smallest_pad(traced(body, names, channels=1))
    assert pad is not None
    model = FCN(body, names, 1, pad=pad, in_channels=1)
    assert model.alignment.min_size == 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("score_") and name.endswith("weight"):
                parameter.fill_(1.0)
        ramp = torch.arange(200.0).expand(1, 1, 160, 200)
        logits = model(ramp)
    inside = slice(70, 90), slice(90, 110)
    torch.testing.assert_close(logits[0, 0][inside], taps * ramp[0, 0][inside], rtol=2e-6, atol=0)


@pytest.mark.parametrize("seed", range(24))
def test_covered_sizes_work_and_the_pad_is_the_smallest(seed: int) -> None:
    body, names = Chain(seed), ("stage1", "stage2", "stage3")
    places = traced(body, names, channels=1)
    pad = smallest_pad(places)
    assert pad is not None
    model = FCN(body, names, 2, pad=pad, in_channels=1)
    with torch.no_grad():
        for size in range(1, 20):
            assert model(torch.zeros(1, 1, size, 21 - size)).shape == (1, 2, size, 21 - size)
    if pad > 0:
        try:
            assert align(places, pad - 1).min_size > 1
        except ValueError as error:
            assert f"with pad={pad} every size is covered" in str(error)  # noqa: PT017


def test_a_network_of_the_users_own() -> None:
    """The usual residual network: taps on pixels, so odd kernels; skips begin before, so sums are cropped."""
    model = FCN(ResNet(), taps=("layer4", "layer2", "layer3"), classes=5)
    assert model.taps == ("layer2", "layer3", "layer4")
    assert [tuple(step) for step in model.alignment.steps] == [(2, 3, -1), (2, 3, -1)]
    assert (tuple(model.alignment.final), model.alignment.min_size) == ((8, 15, -7), 1)


def test_half_pixels_between_branches_are_refused() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.even, self.odd = Mean(2, 2), Mean(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat((self.even(x), self.odd(x)), dim=1)

    message = (
        r"tap '' has no place on the image: aten\.cat\.default joins maps that lie 1/2 pixels of the image"
    )
    with pytest.raises(ValueError, match=message):
        trace(Forked(), lambda module, x: {"": module(x)}, 1)


def test_quarter_pixels_between_taps_are_refused() -> None:
    class Enlarged(nn.Module):
        """Its second map comes from an upsampling that leaves it on quarters of pixels."""

        def __init__(self) -> None:
            super().__init__()
            self.fine = Mean(2, 2)
            self.up = nn.ConvTranspose2d(1, 1, 3, 2)
            self.down = Mean(2, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(self.up(self.fine(x)))

    with pytest.raises(ValueError, match=r"lie 3/4 pixels of tap 'fine' apart.*nothing bridges this"):
        align(traced(Enlarged(), ("fine", "down"), 1))


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (
            ("layer1", "stem"),
            r"tap 'stem' has stride 4 and tap 'layer1' 4: .* shrink by a whole factor",
        ),
        (
            ("fc",),
            r"tap 'fc' has no place on the image: a tensor of shape \(1, 10\) for the image as a whole",
        ),
        (("layer3", "bn"), r"tap 'bn' is neither a submodule"),
        (("layer9",), r"tap 'layer9' is neither a submodule of ResNet nor a key"),
        ((), r"one or more different names, got \(\)"),
        (("layer2", "layer2"), "one or more different names"),
    ],
)
def test_bad_taps_are_named(taps: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FCN(ResNet(), taps)


def test_uncovered_images_are_refused_with_the_pad_that_helps() -> None:
    with pytest.raises(
        ValueError, match=r"begin 68 pixels inside the image .*with pad=96 every size is covered"
    ):
        FCN(VGG16(SMALL, pad=1))
    assert FCN(VGG16(SMALL, pad=1), pad=68).alignment.min_size > 1
    assert FCN(VGG16(SMALL, pad=1), pad=96).alignment.min_size == 1
