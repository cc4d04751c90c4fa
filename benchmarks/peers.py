"""Other libraries that are measured where they are installed, and named where they are not."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import Tensor

CrossEntropy = Callable[[Tensor, Tensor], Tensor]

PEERS = {
    "liger": "liger_kernel.transformers",
    "smp": "segmentation_models_pytorch",
    "torchvision": "torchvision",
}
"""The module of each."""


def missing_peers() -> dict[str, str]:
    """Each peer that cannot be imported here, and why."""
    missing = {}
    for name, module in PEERS.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # a peer built for another torch fails in its own ways
            missing[name] = f"{type(error).__name__}: {error}"
    return missing


def cross_entropies(device: str) -> dict[str, CrossEntropy]:
    """What the peers that are here offer for N×C×H×W logits and N×H×W int64 labels of which 255 is ignored."""
    missing = missing_peers()
    found: dict[str, CrossEntropy] = {}
    if "smp" not in missing:
        losses = importlib.import_module("segmentation_models_pytorch.losses")
        found["interpolate, smp"] = losses.SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=255)
    if "liger" not in missing and device != "cpu":
        liger = importlib.import_module("liger_kernel.transformers").LigerCrossEntropyLoss(ignore_index=255)

        def pixelwise(logits: Tensor, target: Tensor) -> Tensor:
            pixels = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
            loss: Tensor = liger(pixels, target.reshape(-1))
            return loss

        found["interpolate, liger"] = pixelwise
    return found
