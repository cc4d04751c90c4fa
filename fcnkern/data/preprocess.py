"""From uint8 images to network inputs: named presets, one per family of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MEAN_LOG_DEPTH = 7.844
"""Mean of the natural log of NYUDv2's depth in millimetres, as in the authors' networks."""


@dataclass(frozen=True)
class Preprocess:
    """Affine map per channel: (x / scale - mean) / std, after the channels are put in `order`.

    There are as many channels as `mean` has numbers; of RGB and depth only the colours are put in order, and of six
    channels each three, by an order such as "bgr+rgb". `mean` and `std` are in the order of the output's channels
    and in units of x / scale. Instances compare by value and pickle; weights name the preset that they were trained
    with, since another one costs accuracy silently.
    """

    name: str
    order: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not set(self.order.split("+")) <= {"rgb", "bgr"}:
            raise ValueError(f"order is {self.order!r}, wanted 'rgb' or 'bgr', or two of them joined by '+'")
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}, wanted one a channel"
            )

    def __call__(self, image: np.ndarray) -> Tensor:
        """`image` (H, W, channels), colours as RGB -> float32 (channels, H, W), contiguous.

        `image` is of `image_dtype`.

        Raises: TypeError, ValueError for another dtype or shape.
        """
        count = len(self.mean)
        if image.dtype != image_dtype(count):
            raise TypeError(f"image is {image.dtype}, wanted {image_dtype(count)}")
        if image.ndim != 3 or image.shape[2] != count:
            raise ValueError(
                f"image has shape {image.shape}, wanted (height, width, {count}) for the preset {self.name!r}"
            )
        channels = np.moveaxis(self._ordered(image), 2, 0)
        x = torch.from_numpy(np.array(channels, np.float32, order="C"))
        if self.scale != 1:
            x /= self.scale
        return (x - self._column(self.mean)) / self._column(self.std)

    def inverse(self, x: Tensor) -> np.ndarray:
        """The uint8 (H, W, 3) RGB image behind a float (3, H, W) input, for display."""
        if x.dim() != 3 or x.shape[0] != 3 or len(self.mean) != 3:
            raise ValueError(f"x has shape {tuple(x.shape)}, wanted (3, height, width)")
        values = (x.detach().float().cpu() * self._column(self.std) + self._column(self.mean)) * self.scale
        image = values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        return np.ascontiguousarray(self._ordered(image))

    def _ordered(self, image: np.ndarray) -> np.ndarray:
        """The channels put in order, or back: both are the same swap."""
        orders = self.order.split("+")
        if "bgr" not in orders:
            return image
        threes = [image[:, :, 3 * place : 3 * place + 3] for place in range(len(orders))]
        swapped = [x[:, :, ::-1] if order == "bgr" else x for x, order in zip(threes, orders, strict=True)]
        return np.concatenate([*swapped, image[:, :, 3 * len(orders) :]], axis=2)

    @staticmethod
    def _column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)[:, None, None]


presets = {
    "caffe": Preprocess("caffe", "bgr", 1.0, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0)),
    "bvlc": Preprocess("bvlc", "bgr", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)),
    "torchvision": Preprocess("torchvision", "rgb", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "torchvision-bgr": Preprocess("torchvision-bgr", "bgr", 1.0, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)),
    "nyud": Preprocess("nyud", "bgr", 1.0, (116.190, 97.203, 92.318), (1.0, 1.0, 1.0)),
    "nyud-hha": Preprocess("nyud-hha", "rgb", 1.0, (132.431, 94.076, 118.477), (1.0, 1.0, 1.0)),
    "siftflow": Preprocess("siftflow", "bgr", 1.0, (114.578, 115.294, 108.353), (1.0, 1.0, 1.0)),
}
"""`caffe`: BGR, 0..255, minus ImageNet's mean (the authors' nets); `bvlc`: the same with the rounded mean of BVLC's
GoogLeNet; `torchvision`: RGB, 0..1, standardised; `torchvision-bgr`: torchvision's mean in BGR, 0..255, for weights
whose first layer was folded (`fcnkern.weights.fold_first_layer`); `nyud`, `siftflow`: means of those data sets, as in
the authors' networks; `nyud-hha`: channels as stored."""


def image_dtype(channels: int) -> np.dtype:
    """How images of so many channels come: uint8, colours, HHA or both; float32 where there is log depth."""
    return np.dtype(np.float32 if channels % 3 else np.uint8)


def with_depth(name: str) -> str:
    """The preset of four channels that prepares the colours as the preset `name` does, and the log of the depth minus
    its mean.

    Raises: ValueError: `name` is no preset for colours.
    """
    four = f"{name}-rgbd"
    if four not in depth_presets:
        raise ValueError(
            f"preprocessing preset {name!r} is not for colours: it has none with depth beside it"
        )
    return four


def _with_depth(colours: Preprocess) -> Preprocess:
    scale = colours.scale
    mean, std = (*colours.mean, MEAN_LOG_DEPTH / scale), (*colours.std, 1 / scale)
    return Preprocess(f"{colours.name}-rgbd", colours.order, scale, mean, std)


depth_presets = {
    "nyud-depth": Preprocess("nyud-depth", "rgb", 1.0, (MEAN_LOG_DEPTH,), (1.0,)),
    **{
        four.name: four
        for four in (_with_depth(three) for name, three in presets.items() if name != "nyud-hha")
    },
}
"""Log depth, alone or behind the colours: presets of networks that do not take three channels."""


def with_hha(name: str) -> str:
    """The preset of six channels that prepares the colours as the preset `name` does, and HHA behind them.

    HHA is prepared as by ``nyud-hha``; where `name` standardises, by `name` too: weights for such colours expect
    that range.
    """
    return f"{name}+{'nyud-hha' if preset(name).scale == 1 else name}"


def _joined(*parts: Preprocess) -> Preprocess:
    return Preprocess(
        "+".join(part.name for part in parts),
        "+".join(part.order for part in parts),
        1.0,
        tuple(part.scale * value for part in parts for value in part.mean),
        tuple(part.scale * value for part in parts for value in part.std),
    )


def preset(name: str) -> Preprocess:
    """The preset of that name; two names joined by "+" prepare three of six channels each.

    Raises: ValueError naming those there are.
    """
    known = presets | depth_presets
    if name in known:
        return known[name]
    parts = name.split("+")
    if len(parts) == 2 and set(parts) <= set(presets):
        return _joined(*(presets[part] for part in parts))
    raise ValueError(f"preprocessing preset {name!r} is unknown, wanted one of {', '.join(sorted(known))}")


def channels_of(name: str | None) -> int:
    """Channels of the images that the preset prepares; 3 without one. Raises: as `preset`."""
    return 3 if name is None else len(preset(name).mean)
