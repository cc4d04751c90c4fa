"""What elision computes of each map: golden numbers of VGG16, and random chains equal to the plain ones."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

from fcnkern.models.elision import elided_features
from fcnkern.models.elision_chain import chain_of
from fcnkern.models.elision_plan import AxisPlan, axis_plan
from fcnkern.models.geometry import Layer, vgg16_layers

POOLS = (3, 6, 10, 14, 18)
CHANNELS = (3, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)


def vgg16_plan(size: int) -> AxisPlan:
    return axis_plan(tuple(vgg16_layers("pool5")), size, taps=(POOLS[2], POOLS[3]))


@pytest.mark.parametrize(
    ("size", "canvas", "live", "border", "held", "fed"),
    [
        (
            500,
            (349, 175, 88, 44, 22),
            ((48, 301), (23, 152), (10, 78), (3, 41), (0, 22)),
            ((1, 1), (2, 2), (3, 3), (3, 3), (3, 3)),
            ((44, 306), (17, 159), (0, 88), (0, 44), (0, 22)),
            (9, 13, 14, 14),
        ),
        (
            224,
            (211, 106, 53, 27, 14),
            ((48, 163), (23, 83), (10, 43), (3, 23), (0, 13)),
            ((1, 1), (2, 2), (3, 3), (3, 4), (3, 4)),
            ((44, 168), (17, 89), (0, 53), (0, 27), (0, 14)),
            (9, 14, 15, 15),
        ),
    ],
)
def test_the_pools_of_vgg16(
    size: int,
    canvas: tuple[int, ...],
    live: tuple[tuple[int, int], ...],
    border: tuple[tuple[int, int], ...],
    held: tuple[tuple[int, int], ...],
    fed: tuple[int, ...],
) -> None:
    plan = vgg16_plan(size)
    assert tuple(plan.canvases[at].size for at in POOLS) == canvas
    assert tuple(tuple(plan.canvases[at].live) for at in POOLS) == live
    assert tuple((plan.canvases[at].left, plan.canvases[at].right) for at in POOLS) == border
    assert tuple(tuple(plan.held[at]) for at in POOLS) == held
    assert tuple(tuple(plan.computed[at]) for at in POOLS) == (*live[:-1], (0, canvas[-1]))
    assert tuple(plan.fed[at] for at in POOLS[:-1]) == fed


def test_the_convolutions_of_vgg16_at_500() -> None:
    plan = vgg16_plan(500)
    convolutions = [at for at in range(1, 18) if at not in POOLS]
    assert [tuple(plan.computed[at]) for at in convolutions] == [
        (95, 603), (96, 602),
        (45, 305), (46, 304),
        (18, 158), (19, 157), (20, 156),
        (4, 84), (5, 83), (6, 82),
        (0, 44), (0, 44), (0, 44),
    ]  # fmt: skip
    assert plan.pads[0] == (0, 0)
    assert [plan.pads[at - 1] for at in convolutions[-3:]] == [(1, 1)] * 3


@pytest.mark.parametrize(
    ("size", "plain", "elided", "blank"),
    [(500, 180.9, 132.4, 1.4), (375, 118.4, 79.2, 1.5), (224, 62.7, 35.0, 1.6)],
)
def test_multiplications_of_fcn8s(size: int, plain: float, elided: float, blank: float) -> None:
    """In 10^9, with fc6 and fc7."""
    plan = vgg16_plan(size)
    top = (plan.canvases[-1].size - 6) ** 2 * (7 * 7 * 512 * 4096 + 4096 * 4096)
    counts = [top, top, 0]
    for at in range(1, 18):
        if at in POOLS:
            continue
        weights = 9 * CHANNELS[at - 1] * CHANNELS[at]
        start, stop = plan.computed[at]
        counts[0] += weights * plan.canvases[at].size ** 2
        counts[1] += weights * (stop - start) ** 2
        if at < POOLS[3]:
            counts[2] += weights * plan.fed[at - 1] ** 2
    assert [count / 1e9 for count in counts] == pytest.approx([plain, elided, blank], abs=0.06)


def test_a_chain_without_a_margin_is_computed_whole() -> None:
    plan = axis_plan((Layer(3, pad=1), Layer(2, 2), Layer(3, pad=1), Layer(2, 2)), 40)
    assert plan.computed[1:] == plan.held[1:]
    assert all(plan.is_whole(layer) for layer in range(4))


def test_what_has_no_plan() -> None:
    with pytest.raises(ValueError, match="layer 1 pads by 3, which must be less than its span 3"):
        axis_plan((Layer(3), Layer(3, pad=3)), 40)
    with pytest.raises(ValueError, match="layer 1 has no output for an image of 4 pixels"):
        axis_plan((Layer(3), Layer(3)), 4)


def random_layer(choose: random.Random, channels: int, out: int, first: bool) -> list[nn.Module]:
    """A convolution or a pool, with something that acts on each pixel behind it."""
    if not first and choose.random() < 0.35:
        kernel = choose.choice((2, 3, (2, 3)))
        pool = nn.MaxPool2d(kernel, choose.choice((1, 2, 2, (2, 3))), ceil_mode=choose.random() < 0.6)
        return [pool, nn.ReLU(inplace=True)] if choose.random() < 0.3 else [pool]
    kernel = (choose.randint(1, 5), choose.randint(1, 5))
    dilation = choose.choice((1, 1, 2))
    most = [dilation * (side - 1) for side in kernel]
    pad = tuple(choose.randint(0, 40 if first else side) for side in most)
    stride = choose.choice((1, 1, 1, 2, (1, 2), 3))
    conv = nn.Conv2d(
        channels,
        out,
        kernel,
        stride,
        pad,
        dilation,
        groups=choose.choice((1, 1, out if channels == out else 1)),
    )
    return [conv, choose.choice((nn.ReLU(inplace=True), nn.ELU(), nn.BatchNorm2d(out), nn.Identity()))]


def random_chain(seed: int) -> tuple[nn.Sequential, list[str], tuple[int, int, int, int]]:
    """A body, its taps (none of which the layer behind it changes in place), and zeros around its images."""
    choose = random.Random(seed)
    layers: list[nn.Module] = [nn.BatchNorm2d(2)] if choose.random() < 0.15 else []
    leading = len(layers) > 0
    channels = 2
    for index in range(choose.randint(3, 8)):
        added = random_layer(choose, channels, 4, index == 0 and not leading)
        layers += added
        channels = 4 if isinstance(added[0], nn.Conv2d) else channels
    body = nn.Sequential(*layers).double().eval()
    for each in body.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.normal_(each.running_mean)
            nn.init.uniform_(each.running_var, 0.5, 2)
            nn.init.normal_(each.bias)
    able = [at for at in range(len(layers) - 1) if not getattr(layers[at + 1], "inplace", False)]
    taps = [str(at) for at in {*choose.sample(able, min(2, len(able))), len(layers) - 1}]
    return body, taps, tuple(choose.randint(0, 30) for _ in range(4))


def plain(body: nn.Sequential, taps: list[str], x: Tensor) -> dict[str, Tensor]:
    found = {}
    for name, layer in body.named_children():
        x = layer(x)
        if name in taps:
            found[name] = x
    return found


def gradients(maps: dict[str, Tensor], weights: dict[str, Tensor], inputs: list[Tensor]) -> list[Tensor]:
    total = sum((maps[name] * weights[name]).sum() for name in maps)
    return list(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True))


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-30))


def test_random_chains_give_the_plain_maps_and_gradients() -> None:
    done = elided = 0
    for seed in range(150):
        torch.manual_seed(seed)
        body, taps, margins = random_chain(seed)
        x = torch.randn(
            1 + seed % 2, 2, 1 + seed % 23, 1 + 7 * seed % 31, dtype=torch.double, requires_grad=True
        )
        try:
            wanted = plain(body, taps, T.pad(x, margins))
        except RuntimeError:  # the image is too small for a layer
            continue
        chain = chain_of(body, taps)
        found = elided_features(chain, x, margins)
        weights = {name: torch.randn_like(value) for name, value in wanted.items()}
        inputs = [x, *body.parameters()]
        expected = gradients(wanted, weights, inputs)
        largest = max(float(each.abs().max()) for each in expected)
        for name in taps:
            assert difference(found[name], wanted[name]) < 1e-12, (seed, name, body)
        with torch.no_grad():  # where the first layers run in bands
            for name, value in elided_features(chain, x.detach().clone(), margins).items():
                assert difference(value, wanted[name]) < 1e-12, (seed, name, body)
        for ours, theirs in zip(gradients(found, weights, inputs), expected, strict=True):
            assert float((ours - theirs).abs().max()) <= 1e-12 * largest, (seed, body)
        done += 1
        elided += has_parts(body, taps, x, margins)
    assert done > 90
    assert elided > 50


def has_parts(body: nn.Sequential, taps: list[str], x: Tensor, margins: tuple[int, int, int, int]) -> bool:
    """Whether some convolution of the chain is not computed for its whole map."""
    sizes: list[int] = []

    def convolution(*args: object, **kwargs: object) -> Tensor:
        out = original(*args, **kwargs)
        sizes.append(out.shape[2] * out.shape[3])
        return out

    original = T.conv2d
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(T, "conv2d", convolution)
        elided_features(chain_of(body, taps), x, margins)
        ours = sum(sizes)
        sizes.clear()
        plain(body, taps, T.pad(x, margins))
    return ours < sum(sizes)
