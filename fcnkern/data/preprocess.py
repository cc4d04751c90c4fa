"""From uint8 images to network inputs: named presets, one per family of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Preprocess:
    """Affine map per channel: (x / scale - mean) / std, after the channels are put in `order`.

    `mean` and `std` are in the order of the output's channels and in units of x / scale. Instances compare by
    value and pickle; weights name the preset that they were trained with, since another one costs accuracy
    silently.
    """

    name: str
    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.order not in ("rgb", "bgr"):
            raise ValueError(f"order is {self.order!r}, wanted 'rgb' or 'bgr'")

    def __call__(self, image: np.ndarray) -> Tensor:
        """`image` uint8 (H, W, 3) RGB -> float32 (3, H, W), contiguous.

        Raises: TypeError, ValueError for another dtype or shape.
        """
        if image.dtype != np.uint8:
            raise TypeError(f"image is {image.dtype}, wanted uint8")
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image has shape {image.shape}, wanted (height, width, 3)")
        channels = np.moveaxis(image if self.order == "rgb" else image[:, :, ::-1], 2, 0)
        x = torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32))
        if self.scale != 1:
            x /= self.scale
        return (x - self._column(self.mean)) / self._column(self.std)

    def inverse(self, x: Tensor) -> np.ndarray:
        """The uint8 (H, W, 3) RGB image behind a float (3, H, W) input, for display."""
        if x.dim() != 3 or x.shape[0] != 3:
            raise ValueError(f"x has shape {tuple(x.shape)}, wanted (3, height, width)")
        values = (x.detach().float().cpu() * self._column(self.std) + self._column(self.mean)) * self.scale
        image = values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        return np.ascontiguousarray(image if self.order == "rgb" else image[:, :, ::-1])

    @staticmethod
    def _column(values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)[:, None, None]


presets = {
    "caffe": Preprocess("caffe", "bgr", 1.0, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0)),
    "bvlc": Preprocess("bvlc", "bgr", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)),
    "torchvision": Preprocess("torchvision", "rgb", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "torchvision-bgr": Preprocess("torchvision-bgr", "bgr", 1.0, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)),
}
"""`caffe`: BGR, 0..255, minus ImageNet's mean (the authors' nets); `bvlc`: the same with the rounded mean of BVLC's
GoogLeNet; `torchvision`: RGB, 0..1, standardised; `torchvision-bgr`: torchvision's mean in BGR, 0..255, for weights
whose first layer was folded (`fcnkern.weights.fold_first_layer`)."""


def preset(name: str) -> Preprocess:
    """The preset of that name. Raises: ValueError naming those there are."""
    if name not in presets:
        raise ValueError(
            f"preprocessing preset {name!r} is unknown, wanted one of {', '.join(sorted(presets))}"
        )
    return presets[name]
