"""Label maps window by window: those of the whole image, from no more of it than a tile at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fcnkern.models import FCN, create
from fcnkern.models.alignment import smallest_pad
from fcnkern.models.body import Taps
from fcnkern.models.tiling import tiled, windows
from fcnkern.models.tracing import trace
from tests.models import _caffe
from tests.models._bodies import Chain, ResNet

STAGES = ("stage1", "stage2", "stage3")


class Small(nn.Module):
    """A body with a ceil-mode pool, a strided convolution and padding at every layer: strides 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))
        self.stage3 = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.stage3(self.stage2(self.stage1(x)))


def small() -> FCN:
    """In fp64, in which no two scores are equal to rounding; kernels may sum otherwise for another size."""
    body = Small()
    pad = smallest_pad(trace(body, Taps(body, STAGES)))
    assert pad is not None
    model = FCN(body, STAGES, 5, pad=pad).double().eval()
    _caffe.randomize(model)
    return model


def image(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(size[0]))


@pytest.mark.parametrize("rows", range(97, 106))
def test_seams_are_exact(rows: int) -> None:
    model = small()
    margin, stride = model.alignment.margin, model.alignment.stride
    assert margin is not None
    x = image(rows, 222 - rows)
    least = 2 * margin + stride
    assert least < 90
    for tile in (least, (least + 1, 90), (least + stride, 300)):
        assert torch.equal(model.predict(x, tile=tile), model.predict(x)), tile


def test_a_smaller_margin_would_show() -> None:
    model, x = small(), image(200, 150)
    margin = model.alignment.margin
    assert margin is not None
    narrow = model.alignment._replace(margin=margin // 2)
    found = tiled(model.predict, x, (40, 40), narrow, x.device, torch.uint8)
    assert not torch.equal(found, model.predict(x))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("taps", [1, 3])
def test_the_margin_is_what_a_score_depends_on(seed: int, taps: int) -> None:
    body = Chain(seed)
    pad = smallest_pad(trace(body, Taps(body, STAGES[-taps:]), 1))
    assert pad is not None
    model = FCN(body, STAGES[-taps:], 1, pad=pad, in_channels=1)
    for name, parameter in model.named_parameters():
        if name.startswith("score_") and name.endswith("weight"):
            nn.init.ones_(parameter)
    margin = model.alignment.margin
    assert margin is not None
    x = torch.zeros(1, 1, 161, 161, requires_grad=True)
    logits, farthest = model(x), 0
    for pixel in range(76, 76 + model.alignment.stride):
        (gradient,) = torch.autograd.grad(logits[0, 0, pixel, 80], x, retain_graph=True)
        touched = gradient[0, 0].abs().sum(1).nonzero().flatten() - pixel
        farthest = max(farthest, int(touched.abs().max()))
    assert margin - 1 <= farthest <= margin


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn16s_caffenet", "fcn32s_googlenet"])
def test_the_papers_networks(name: str) -> None:
    model = create(name, 4, width=1 / 64).double().eval()
    _caffe.randomize(model)
    margin = model.alignment.margin
    assert margin is not None
    least = 2 * margin + 32
    x = image(least + 45, 40)[:1]
    assert torch.equal(model.predict(x, tile=(least, 64)), model.predict(x))


@pytest.mark.parametrize(("size", "tile"), [(1, 1), (100, 64), (101, 64), (999, 71), (64, 64), (65, 64)])
def test_windows_label_every_pixel_once(size: int, tile: int) -> None:
    found = windows(size, tile, 20, 8)
    assert [window.first for window in found] == [0, *(window.last for window in found[:-1])]
    assert found[-1].last == found[-1].end == size
    for window in found:
        assert window.end - window.start <= tile
        assert window.start % 8 == 0
        assert window.start == 0 or window.first - window.start >= 20
        assert window.end == size or window.end - window.last >= 20


def test_no_more_than_a_tile_is_seen() -> None:
    model, seen = small(), []
    model.body.stage1.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[2:])))
    model.predict(image(300, 260), tile=(100, 90))
    assert len(seen) > 12
    pad = 2 * model._pad
    assert max(height for height, _ in seen) == 100 + pad
    assert max(width for _, width in seen) == 90 + pad


def test_the_labels_keep_type_and_device() -> None:
    found = small().predict(image(100, 100).half().double(), tile=(90, 90), out_dtype=torch.int32)
    assert found.dtype == torch.int32
    assert found.device.type == "cpu"


def test_what_is_refused() -> None:
    model = small()
    margin = model.alignment.margin
    assert margin is not None
    with pytest.raises(ValueError, match=rf"tile must be at least {2 * margin + 8} pixels a side .* got 16"):
        model.predict(image(100, 100), tile=(100, 16))
    with pytest.raises(ValueError, match=r"tile must be a whole number or a pair of them, got \(90,\)"):
        model.predict(image(100, 100), tile=(90,))
    with pytest.raises(ValueError, match="tile excludes scales and flip"):
        model.predict(image(100, 100), tile=(90, 90), flip=True)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, H, W\)"):
        model.predict(image(100, 100)[0], tile=(90, 90))


def test_a_residual_network() -> None:
    model = FCN(ResNet(), ("layer2", "layer3", "layer4"), classes=3).double().eval()
    _caffe.randomize(model)
    margin = model.alignment.margin
    assert margin is not None
    x = image(2 * margin + 100, 50)
    assert torch.equal(model.predict(x, tile=(2 * margin + 32, 50)), model.predict(x))
