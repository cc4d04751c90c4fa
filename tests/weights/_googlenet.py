"""BVLC GoogLeNet in plain PyTorch functions, straight from a state under Caffe's names: an independent check."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as T
from torch import Tensor

BLOCKS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
POOL_BEFORE = {"4a": "pool3/3x3_s2", "5a": "pool4/3x3_s2"}


def activations(state: Mapping[str, Tensor], data: Tensor) -> dict[str, Tensor]:
    """Caffe's blobs by name, for images N,3,H,W in BGR minus (104, 117, 123); the last one is `prob`."""
    blobs = {"data": data}

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return T.relu(T.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding))

    def pool(x: Tensor) -> Tensor:
        return T.max_pool2d(x, 3, 2, ceil_mode=True)

    def inception(name: str, x: Tensor) -> Tensor:
        branches = (
            conv(f"{name}/1x1", x),
            conv(f"{name}/3x3", conv(f"{name}/3x3_reduce", x), padding=1),
            conv(f"{name}/5x5", conv(f"{name}/5x5_reduce", x), padding=2),
            conv(f"{name}/pool_proj", T.max_pool2d(x, 3, 1, padding=1)),
        )
        return torch.cat(branches, 1)

    x = blobs["conv1/7x7_s2"] = conv("conv1/7x7_s2", data, stride=2, padding=3)
    x = blobs["pool1/3x3_s2"] = pool(x)
    x = blobs["pool1/norm1"] = local_response_norm(x)
    x = conv("conv2/3x3", conv("conv2/3x3_reduce", x), padding=1)
    x = blobs["conv2/norm2"] = local_response_norm(x)
    x = blobs["pool2/3x3_s2"] = pool(x)
    for block in BLOCKS:
        if block in POOL_BEFORE:
            x = blobs[POOL_BEFORE[block]] = pool(x)
        x = blobs[f"inception_{block}/output"] = inception(f"inception_{block}", x)
    x = T.linear(x.mean((2, 3)), state["loss3/classifier.weight"], state["loss3/classifier.bias"])
    blobs["prob"] = x.softmax(1)
    return blobs


def local_response_norm(x: Tensor) -> Tensor:
    """Caffe's, across channels: size 5, alpha 1e-4 (divided by the size), beta 0.75, k 1."""
    squares = T.pad(x * x, (0, 0, 0, 0, 2, 2))
    window = sum(squares[:, shift : shift + x.shape[1]] for shift in range(5))
    return x / (1 + 1e-4 / 5 * window) ** 0.75
