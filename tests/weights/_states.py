"""Weights of the networks of the paper, under any of the names they have."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.weights.key_maps import ARCHITECTURES, Naming


def state_of(architecture: str, naming: Naming) -> dict[str, Tensor]:
    """Weights under the names of `naming`, in which no two numbers of a layer are alike, at no cost of memory."""
    state = {}
    for index, (name, layer) in enumerate(ARCHITECTURES[architecture].named(naming).items()):
        shape = layer.matrix if layer.dense and naming == "torchvision" else layer.shape
        state[f"{name}.weight"] = torch.full((), index + 1.0).expand(shape)
        state[f"{name}.bias"] = torch.full((), -index - 1.0).expand(shape[:1])
    return state


def body(architecture: str = "vgg16", naming: Naming = "fcnkern") -> dict[str, Tensor]:
    dense = ("fc", "classifier", "loss3")
    return {key: value for key, value in state_of(architecture, naming).items() if not key.startswith(dense)}
