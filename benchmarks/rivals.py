"""How plain PyTorch does the same: what a user writes without this library."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def interpolate(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """N×C×H×W scores."""
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def bilinear_weight(channels: int, factor: int) -> Tensor:
    """The dense C×C×k×k weight that Caffe fills for bilinear upsampling: zero off the diagonal."""
    kernel = 2 * factor - factor % 2
    line = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / factor
    weight = torch.zeros(channels, channels, kernel, kernel)
    weight[range(channels), range(channels)] = line[:, None] * line
    return weight


def deconvolve(scores: Tensor, weight: Tensor, factor: int, offset: int, size: tuple[int, int]) -> Tensor:
    """N×C×H×W scores by the dense transposed convolution of the FCN implementations, cropped."""
    full = F.conv_transpose2d(scores, weight, stride=factor)
    return full[:, :, offset : offset + size[0], offset : offset + size[1]]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the pixels that are not 255."""
    return F.cross_entropy(logits, target, ignore_index=255)


def masked_bincount(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """C×C counts [truth, prediction] over the pixels that are not 255."""
    counted = target != 255
    cells = target[counted] * classes + prediction[counted]
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def skip_step(
    offset: int, x: Tensor, weight: Tensor, skip: Tensor, skip_weight: Tensor, bias: Tensor
) -> Tensor:
    """Scores the skip's features, upsamples x by two, crops and adds."""
    up = F.conv_transpose2d(x, weight, stride=2)
    scored = F.conv2d(skip, skip_weight, bias)
    return up + scored[:, :, offset : offset + up.shape[2], offset : offset + up.shape[3]]


def classifier(x: Tensor, weight: Tensor, bias: Tensor, dropout_p: float) -> Tensor:
    """1×1 convolution, ReLU, dropout."""
    return F.dropout(F.relu(F.conv2d(x, weight, bias)), dropout_p)
