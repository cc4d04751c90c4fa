"""BVLC GoogLeNet as a fully convolutional body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from fcnkern.models.body import Body, check_images, check_in_channels, check_width, scale_channels
from fcnkern.models.layers import BodyConv2d, CaffeLRN, CeilMaxPool2d, in_turn
from fcnkern.nn import MaxPool2d

PAD = 3
BLOCKS = {  # 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Four branches, joined in Caffe's order: 1x1, 3x3, 5x5, pool_proj.

    Attributes:
        out_channels: of the joined map.
    """

    def __init__(self, in_channels: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, proj = sizes
        self._add("1x1", in_channels, one, 1)
        self._add("3x3_reduce", in_channels, reduce3, 1)
        self._add("3x3", reduce3, three, 3)
        self._add("5x5_reduce", in_channels, reduce5, 1)
        self._add("5x5", reduce5, five, 5)
        self.pool = MaxPool2d(3, stride=1, padding=1)
        self._add("pool_proj", in_channels, proj, 1)
        self.out_channels = one + three + five + proj

    def _add(self, name: str, channels: int, out: int, kernel: int) -> None:
        self.add_module(name, BodyConv2d(channels, out, kernel, padding=kernel // 2))
        self.add_module(f"relu_{name}", nn.ReLU(inplace=True))

    def _run(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = getattr(self, f"relu_{name}")(getattr(self, name)(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """N,in_channels,H,W -> N,out_channels,H,W."""
        branches = (
            self._run(x, "1x1"),
            self._run(x, "3x3_reduce", "3x3"),
            self._run(x, "5x5_reduce", "5x5"),
            self._run(self.pool(x), "pool_proj"),
        )
        return torch.cat(branches, dim=1)


class GoogLeNet(Body):
    """BVLC GoogLeNet up to inception_5b: the auxiliary classifiers, the average pooling and the classifier dropped.

    So the paper casts it (section 4.1); the dropout before the classifier (0.4) stays. Every pool rounds up, as
    Caffe's do. Taps are inception_3b, inception_4e and what goes into the classifier, at strides 8, 16 and 32.

    Names are Caffe's with every "/" replaced by ".", and back, since Caffe's have no dot: layer
    `inception_3a/3x3_reduce` has its weight at `inception_3a.3x3_reduce.weight` of the state_dict, `conv1/7x7_s2` at
    `conv1.7x7_s2.weight`.

    conv1 pads by 3, as in the classifier. Sides of fewer than 31 pixels leave nothing for the last pool; an FCN pads
    such images. The authors published no FCN-GoogLeNet, so that its padding is not known.

    Args:
        width: scales the channels; 1 is GoogLeNet.
        pad: of conv1.
        in_channels: of the images.

    Raises:
        ValueError: `width` is not a positive finite number, or `in_channels` < 1.
    """

    preprocess = "bvlc"
    tap_names: ClassVar[tuple[str, ...]] = ("inception_3b", "inception_4e", "pool5")
    not_elided = "it has branches, and a pad of 3 leaves no margin to save"

    def __init__(self, width: float = 1.0, pad: int = PAD, in_channels: int = 3) -> None:
        super().__init__()
        self.width = check_width(width)
        self.in_channels = check_in_channels(in_channels)
        first, reduced, second = (scale_channels(channels, width) for channels in (64, 64, 192))
        self.conv1 = _named(
            {"7x7_s2": BodyConv2d(in_channels, first, 7, 2, pad), "relu_7x7": nn.ReLU(inplace=True)}
        )
        self.pool1 = _named({"3x3_s2": _pool(), "norm1": CaffeLRN()})
        self.conv2 = _named(
            {
                "3x3_reduce": BodyConv2d(first, reduced, 1),
                "relu_3x3_reduce": nn.ReLU(inplace=True),
                "3x3": BodyConv2d(reduced, second, 3, padding=1),
                "relu_3x3": nn.ReLU(inplace=True),
                "norm2": CaffeLRN(),
            }
        )
        self.pool2 = _named({"3x3_s2": _pool()})
        channels = second
        for name, sizes in BLOCKS.items():
            block = Inception(channels, tuple(scale_channels(size, width) for size in sizes))
            self.add_module(f"inception_{name}", block)
            channels = block.out_channels
            if name in ("3b", "4e"):
                self.add_module(f"pool{name[0]}", _named({"3x3_s2": _pool()}))
        self.pool5 = _named({"drop_7x7_s1": nn.Dropout(0.4)})

    def features(self, x: Tensor) -> Mapping[str, Tensor]:
        """Images N,3,H,W -> inception_3b, inception_4e and pool5 (inception_5b after dropout) by name."""
        check_images(x, self.in_channels)
        layers = list(self.named_children())
        return {name: found for name, found in in_turn(layers, x) if name in self.tap_names}


def _pool() -> CeilMaxPool2d:
    return CeilMaxPool2d(3, stride=2)


def _named(layers: dict[str, nn.Module]) -> nn.Sequential:
    """Layers in order, under names of which some are no attribute names."""
    stage = nn.Sequential()
    for name, layer in layers.items():
        stage.add_module(name, layer)
    return stage
