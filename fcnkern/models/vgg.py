"""The fully convolutional VGG16 body of the paper (conv1_1 ... fc7), with pytorch-fcn's attribute names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from fcnkern.models.body import (
    Chain,
    HiddenBody,
    check_images,
    check_in_channels,
    check_width,
    scale_channels,
)
from fcnkern.models.layers import BodyConv2d, CeilMaxPool2d, in_turn
from fcnkern.weights import LoadReport, transfer_body

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
PAD = 100
TRUNK = tuple(
    name
    for stage, convs in enumerate(STAGES, 1)
    for name in (
        *(f"{kind}{stage}_{index}" for index in range(1, len(convs) + 1) for kind in ("conv", "relu")),
        f"pool{stage}",
    )
)
"""conv1_1, relu1_1 ... pool5, in the order in which they run."""


class VGG16(HiddenBody):
    """VGG16 cast to a fully convolutional network: conv1_1 (pad 100) to conv5_3, fc6 (7x7), fc7 (1x1).

    Pools round up (Caffe's rule), so every input size from 1x1 works. Dropout follows fc6 and fc7. Modules are called
    as Caffe's layers, so that the state_dict has Caffe's (and pytorch-fcn's) names.

    New weights: He for every layer of the body, zero biases. (pytorch-fcn starts from zeros, from which
    nothing can be learned until weights are copied in.) For weights trained on ImageNet see
    `fcnkern.weights.load_body`.

    Args:
        width: scales the channels of every layer, 64..512 and 4096; 1 is VGG16.
        pad: of conv1_1; with another one scores lie elsewhere, and it is another network.
        in_channels: of the images; 4 for early fusion of colour and depth (see `fcnkern.models.surgery.fuse_early`).

    Attributes:
        preprocess: how input images must be prepared, "torchvision" (RGB, mean and standard deviation) or "caffe"
            (BGR 0..255, mean only). It belongs to the weights: set "caffe" after loading a checkpoint of the authors'
            or of pytorch-fcn's by `load_state_dict`.

    Raises:
        ValueError: `width` is not a positive finite number, or `in_channels` < 1.
    """

    tap_names = ("pool3", "pool4", "fc7")
    body_layers: ClassVar[tuple[str, ...]] = tuple(
        f"conv{stage}_{index}" for stage, convs in enumerate(STAGES, 1) for index in range(1, len(convs) + 1)
    ) + ("fc6", "fc7")

    def __init__(self, width: float = 1.0, pad: int = PAD, in_channels: int = 3) -> None:
        super().__init__()
        self.width = check_width(width)
        self.preprocess = "torchvision"
        self.in_channels = channels = check_in_channels(in_channels)
        for stage, convs in enumerate(STAGES, 1):
            for index, out in enumerate(convs, 1):
                out_channels = scale_channels(out, width)
                padding = pad if (stage, index) == (1, 1) else 1
                self.add_module(
                    f"conv{stage}_{index}", BodyConv2d(channels, out_channels, 3, padding=padding)
                )
                self.add_module(f"relu{stage}_{index}", nn.ReLU(inplace=True))
                channels = out_channels
            self.add_module(f"pool{stage}", CeilMaxPool2d(2, stride=2))
        self._add_hidden(channels, 7, width)

    def pools(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images N,3,H,W (preprocessed, floating point) -> pool3, pool4 and pool5, at strides 8, 16 and 32.

        Raises:
            TypeError: `x` is not a floating-point tensor.
            ValueError: `x` is not N,3,H,W with N, H, W >= 1.
        """
        check_images(x, self.in_channels)
        layers = [(name, getattr(self, name)) for name in TRUNK]
        pool3, pool4, pool5 = (
            found for name, found in in_turn(layers, x) if name in ("pool3", "pool4", "pool5")
        )
        return pool3, pool4, pool5

    def features(self, x: Tensor) -> Mapping[str, Tensor]:
        """Images N,3,H,W -> pool3, pool4 and fc7 by name."""
        pool3, pool4, pool5 = self.pools(x)
        return {"pool3": pool3, "pool4": pool4, "fc7": self.classify(pool5)}

    def chain(self) -> Chain:
        """conv1_1 ... pool5, behind which `classify` gives fc7."""
        if type(self).features is not VGG16.features or type(self).pools is not VGG16.pools:
            raise ValueError(
                f"elide is not for {type(self).__name__}, which computes feature maps of its own"
            )
        layers = tuple((name, getattr(self, name)) for name in TRUNK)
        taps = {"pool3": TRUNK.index("pool3") + 1, "pool4": TRUNK.index("pool4") + 1, "fc7": len(TRUNK)}
        return Chain(layers, taps, {"fc7": self.classify})

    def copy_params_from_vgg16(self, vgg16: nn.Module | Mapping[str, Any]) -> LoadReport:
        """Take the body's weights from another VGG16 and report what was taken.

        Args:
            vgg16: a model of this package, a module with torchvision's `features` and `classifier`, or a mapping from
                names (torchvision's, pytorch-fcn's or Caffe's layer names) to tensors or arrays. Without fully
                connected layers in it, fc6 and fc7 get new weights. `preprocess` is taken over where the
                source has it.

        Raises:
            ValueError: a convolution is missing or a shape does not fit; nothing has been changed then.
        """
        state = vgg16.state_dict() if isinstance(vgg16, nn.Module) else vgg16
        report = transfer_body(self, state, source=type(vgg16).__name__)
        self.preprocess = getattr(vgg16, "preprocess", self.preprocess)
        return report
