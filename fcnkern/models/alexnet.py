"""AlexNet as a fully convolutional body: Caffe's CaffeNet, and the one-tower network of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from fcnkern.models.body import HiddenBody, check_images, check_in_channels, check_width, scale_channels
from fcnkern.models.layers import BodyConv2d, CaffeLRN, CeilMaxPool2d, in_turn

PAD = 100


class _Conv(NamedTuple):
    out: int
    kernel: int
    stride: int = 1
    pad: int = 0
    groups: int = 1


class _FiveConvolutions(HiddenBody):
    """conv1 to conv5, pools (3x3, stride 2) after the first, the second and the last, fc6 (6x6) and fc7.

    Pools round up and conv1 pads by 100 as in the authors' FCN-AlexNet, so that every input size from 1x1 works. Taps
    are pool1 and pool2, before normalisation, and fc7, at strides 8, 16 and 32.
    """

    tap_names = ("pool1", "pool2", "fc7")
    not_elided = "its first layers, on which alone the margin weighs, are too small a part of its work"
    convolutions: ClassVar[tuple[_Conv, ...]]
    normalised: ClassVar[bool]

    def __init__(self, width: float = 1.0, pad: int = PAD, in_channels: int = 3) -> None:
        super().__init__()
        self.width = check_width(width)
        self.in_channels = channels = check_in_channels(in_channels)
        for index, conv in enumerate(self.convolutions, 1):
            out = scale_channels(conv.out, width)
            padding = pad if index == 1 else conv.pad
            layer = BodyConv2d(channels, out, conv.kernel, conv.stride, padding, groups=conv.groups)
            self.add_module(f"conv{index}", layer)
            self.add_module(f"relu{index}", nn.ReLU(inplace=True))
            if index in (1, 2, 5):
                self.add_module(f"pool{index}", CeilMaxPool2d(3, stride=2))
            if index in (1, 2) and self.normalised:
                self.add_module(f"norm{index}", CaffeLRN())
            channels = out
        self._add_hidden(channels, 6, width)

    def features(self, x: Tensor) -> Mapping[str, Tensor]:
        """Images N,3,H,W -> pool1, pool2 and fc7 by name."""
        check_images(x, self.in_channels)
        layers = list(self.named_children())
        until = [name for name, _ in layers].index("fc6")
        taps = {name: x for name, x in in_turn(layers[:until], x) if name in ("pool1", "pool2", "pool5")}
        return {"pool1": taps["pool1"], "pool2": taps["pool2"], "fc7": self.classify(taps["pool5"])}


class CaffeNet(_FiveConvolutions):
    """Caffe's reference network, the paper's AlexNet: groups of two, pooling before normalisation.

    The layers are those of the authors' voc-fcn-alexnet, whose names the modules have, so that the state_dict has
    Caffe's names: conv1 (96, 11x11, stride 4, pad 100) to conv5, fc6 (6x6), fc7. Local response normalisation over 5
    channels, alpha 1e-4 divided by 5, beta 0.75.

    Args:
        width: scales the channels; 1 is CaffeNet.
        pad: of conv1.
        in_channels: of the images.

    Raises:
        ValueError: `width` is not a positive finite number, or `in_channels` < 1.
    """

    preprocess = "caffe"
    normalised = True
    convolutions = (
        _Conv(96, 11, stride=4),
        _Conv(256, 5, pad=2, groups=2),
        _Conv(384, 3, pad=1),
        _Conv(384, 3, pad=1, groups=2),
        _Conv(256, 3, pad=1, groups=2),
    )


class AlexNet(_FiveConvolutions):
    """The one-tower AlexNet that torchvision has (Krizhevsky 2014): no groups, no normalisation.

    Modules are called conv1 ... conv5, fc6, fc7. Unlike torchvision's classifier it pads conv1 by 100 (not 2), its
    pools round up, and dropout follows fc6 and fc7 instead of preceding them.

    Args:
        width: scales the channels; 1 is AlexNet.
        pad: of conv1.
        in_channels: of the images.

    Raises:
        ValueError: `width` is not a positive finite number, or `in_channels` < 1.
    """

    preprocess = "torchvision"
    normalised = False
    convolutions = (
        _Conv(64, 11, stride=4),
        _Conv(192, 5, pad=2),
        _Conv(384, 3, pad=1),
        _Conv(256, 3, pad=1),
        _Conv(256, 3, pad=1),
    )
