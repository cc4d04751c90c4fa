"""The fully convolutional VGG16 body of the paper (conv1_1 ... fc7), with pytorch-fcn's attribute names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fcnkern import functional as F
from fcnkern.models.layers import BodyConv2d
from fcnkern.weights import LoadReport, transfer_vgg16

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FC_CHANNELS = 4096
PAD = 100


def scale_channels(channels: int, width: float) -> int:
    """`channels * width`, rounded to a multiple of four and at least four."""
    return max(4, 4 * round(channels * width / 4))


class VGG16(nn.Module):
    """VGG16 cast to a fully convolutional network: conv1_1 (pad 100) to conv5_3, fc6 (7x7), fc7 (1x1).

    Pools round up (Caffe's rule), so every input size from 1x1 works. Dropout is element-wise, as Caffe's is
    (pytorch-fcn drops whole channels); it follows fc6 and fc7 and is set by `drop6.p` and `drop7.p`. The ReLU and the
    dropout after fc7 run inside `fcnkern.functional.conv1x1`.

    New weights: He for every layer of the body, zero biases. (pytorch-fcn starts from zeros, from which
    nothing can be learned until weights are copied in.) For weights trained on ImageNet see
    `fcnkern.weights.load_vgg16`.

    Args:
        width: scales the channels of every layer, 64..512 and 4096; 1 is VGG16.

    Attributes:
        preprocess: how input images must be prepared, "torchvision" (RGB, mean and standard deviation) or "caffe"
            (BGR 0..255, mean only). It belongs to the weights: set "caffe" after loading a checkpoint of the authors'
            or of pytorch-fcn's by `load_state_dict`.

    Raises:
        ValueError: `width` is not a positive finite number.
    """

    preprocess: str
    fc6: BodyConv2d
    fc7: BodyConv2d
    drop6: nn.Dropout
    drop7: nn.Dropout
    body_layers: ClassVar[tuple[str, ...]] = tuple(
        f"conv{stage}_{index}" for stage, convs in enumerate(STAGES, 1) for index in range(1, len(convs) + 1)
    ) + ("fc6", "fc7")

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(width) and width > 0):
            raise ValueError(f"width must be a positive finite number, got {width!r}")
        self.width = float(width)
        self.preprocess = "torchvision"
        channels = 3
        for stage, convs in enumerate(STAGES, 1):
            for index, out in enumerate(convs, 1):
                out_channels = scale_channels(out, width)
                pad = PAD if (stage, index) == (1, 1) else 1
                self.add_module(f"conv{stage}_{index}", BodyConv2d(channels, out_channels, 3, padding=pad))
                self.add_module(f"relu{stage}_{index}", nn.ReLU(inplace=True))
                channels = out_channels
            self.add_module(f"pool{stage}", nn.MaxPool2d(2, stride=2, ceil_mode=True))
        hidden = scale_channels(FC_CHANNELS, width)
        self.fc6 = BodyConv2d(channels, hidden, 7)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout()
        self.fc7 = BodyConv2d(hidden, hidden, 1)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout()

    def pool_channels(self, stage: int) -> int:
        """Channels of the feature map that pool1 ... pool5 give."""
        return scale_channels(STAGES[stage - 1][-1], self.width)

    def pools(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images N,3,H,W (preprocessed, floating point) -> pool3, pool4 and pool5, at strides 8, 16 and 32.

        Raises:
            TypeError: `x` is not a floating-point tensor.
            ValueError: `x` is not N,3,H,W with N, H, W >= 1.
        """
        _check_images(x)
        taps: list[Tensor] = []
        for stage, convs in enumerate(STAGES, 1):
            for index in range(1, len(convs) + 1):
                x = getattr(self, f"conv{stage}_{index}")(x)
                x = getattr(self, f"relu{stage}_{index}")(x)
            x = getattr(self, f"pool{stage}")(x)
            taps.append(x)
        return taps[2], taps[3], taps[4]

    def classify(self, pool5: Tensor) -> Tensor:
        """pool5 -> fc7 features (after dropout, in training), smaller by 6 on each axis."""
        hidden = self.drop6(self.relu6(self.fc6(pool5)))
        dropout_p = self.drop7.p if self.training else 0.0
        return F.conv1x1(hidden, self.fc7.weight, self.fc7.bias, relu=True, dropout_p=dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> fc7 features N,4096*width,h,w."""
        return self.classify(self.pools(x)[2])

    def reset_parameters(self) -> None:
        """Initialise every layer anew: He body, and in the FCNs zero score layers and bilinear upsampling."""
        for name, _ in self.named_children():
            self.reset_layer(name)

    def reset_layer(self, name: str) -> None:
        """Initialise one layer anew, if it has parameters."""
        layer = getattr(self, name)
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()

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
        report = transfer_vgg16(self, state, source=type(vgg16).__name__)
        self.preprocess = getattr(vgg16, "preprocess", self.preprocess)
        return report

    def check_ready(self) -> None:
        """Report weights from which training cannot start, before it does.

        Raises:
            RuntimeError: layers of the body are all zero (nothing reaches the classifier, the loss stays at ln C for
                ever), or parameters contain NaN or infinity, or have no storage (meta device).
        """
        problems: dict[str, list[str]] = {"not finite": [], "all zero": [], "on the meta device": []}
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                problems["on the meta device"].append(name)
                continue
            norm = torch.linalg.vector_norm(parameter.detach(), dtype=_norm_dtype(parameter)).item()
            if not math.isfinite(norm):
                problems["not finite"].append(name)
            elif norm == 0 and name.endswith(".weight") and not name.startswith("score_"):
                problems["all zero"].append(name)
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        if found:
            raise RuntimeError(
                f"{type(self).__name__} cannot be trained from these weights ({found}). Load weights "
                "(fcnkern.weights.load_vgg16, copy_params_from_vgg16, load_state_dict) or call reset_parameters()."
            )


def _norm_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _check_images(x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"x must be a floating-point tensor of preprocessed images, got {x.dtype}; "
            "see fcnkern.data for the presets"
        )
    if x.dim() != 4 or x.shape[1] != 3:
        raise ValueError(f"x must have shape (N, 3, H, W), got {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"x must have at least one image and one pixel, got shape {tuple(x.shape)}")
