"""Other libraries that are measured where they are installed, and named where they are not."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import Tensor

CrossEntropy = Callable[[Tensor, Tensor], Tensor]


class UnmeasuredError(Exception):
    """Why a peer is not measured, though it may be installed."""


def cross_entropies(device: str) -> dict[str, CrossEntropy]:
    """What the peers that are here offer for N×C×H×W logits and N×H×W int64 labels of which 255 is ignored."""
    return {
        f"interpolate, {name}": each for name, each in _peers(device).items() if not isinstance(each, str)
    }


def unmeasured(device: str) -> dict[str, str]:
    """Each peer that is not measured on a device, and why."""
    return {name: each for name, each in _peers(device).items() if isinstance(each, str)}


def _peers(device: str) -> dict[str, CrossEntropy | str]:
    """The loss of each peer, or why there is none: one built for another torch fails in its own ways."""
    found: dict[str, CrossEntropy | str] = {}
    for name, make in PEERS.items():
        try:
            found[name] = make(device)
        except UnmeasuredError as error:
            found[name] = str(error)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def _smp(device: str) -> CrossEntropy:
    losses = importlib.import_module("segmentation_models_pytorch.losses")
    loss: CrossEntropy = losses.SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=255)
    return loss


def _liger(device: str) -> CrossEntropy:
    if device == "cpu":
        raise UnmeasuredError("its kernels need a GPU")
    liger = importlib.import_module("liger_kernel.transformers").LigerCrossEntropyLoss(ignore_index=255)

    def pixelwise(logits: Tensor, target: Tensor) -> Tensor:
        pixels = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
        loss: Tensor = liger(pixels, target.reshape(-1))
        return loss

    return pixelwise


def _torchvision(device: str) -> CrossEntropy:
    raise UnmeasuredError(
        "its FCN is another network and has no loss; what it upsamples with is measured as interpolate"
    )


PEERS = {"liger": _liger, "smp": _smp, "torchvision": _torchvision}
"""What makes the loss of each on a device."""
