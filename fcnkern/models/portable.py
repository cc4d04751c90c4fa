"""The networks in standard PyTorch operations, for programs that run without this package: torch.export, ONNX.

The same sums as `FCN.forward`, with full-resolution scores. No size is compared with another, so that one program
serves images of every size: a comparison would become a guard, which pins what it cannot prove.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as T
from torch import Tensor, nn

from fcnkern.models.body import check_images
from fcnkern.models.layers import BilinearDeconv2d, is_conv1x1
from fcnkern.models.names import score_name

if TYPE_CHECKING:
    from fcnkern.models.fcn import FCN


def logits(model: FCN, x: Tensor) -> Tensor:
    """Images N,3,H,W -> logits N,C,H,W, as `model(x)` gives them."""
    check_images(x, model._in_channels)
    features = model._features(model.body, _padded(model, x))
    *skips, coarsest = model.taps
    scores = _scored(model.score_fr, features[coarsest])
    steps = zip(
        reversed(skips), model.alignment.steps, model._step_layers, reversed(model._scales), strict=True
    )
    for tap, step, layer, scale in steps:
        upsampled, skip = _upsampled(scores, model._deconv(layer)), features[tap]
        starts = max(0, -step.offset), max(0, step.offset)
        size = [
            torch.sym_min(coarse - starts[0], fine - starts[1])
            for coarse, fine in zip(upsampled.shape[2:], skip.shape[2:], strict=True)
        ]
        classifier = model.get_submodule(score_name(tap))
        if is_conv1x1(classifier):
            added = _scored(classifier, _window(skip, starts[1], size), scale)
        else:
            added = _window(_scored(classifier, skip, scale), starts[1], size)
        scores = _window(upsampled, starts[0], size) + added
    return _window(_upsampled(scores, model._deconv(model.final_layer)), model.final_offset, x.shape[2:])


def _scored(classifier: nn.Module, features: Tensor, scale: float = 1.0) -> Tensor:
    """The scores of ``scale * features``, as `fcnkern.models.skip.score` gives them."""
    if is_conv1x1(classifier):
        return T.conv2d(features, classifier.weight * scale, classifier.bias)
    scores: Tensor = classifier(features * scale)
    return scores


def _padded(model: FCN, x: Tensor) -> Tensor:
    """`FCN._padded` without a comparison of sizes."""
    least, pad = model.alignment.min_size, model._pad
    if least == 1 and pad == 0:
        return x
    below, right = (torch.sym_max(side, least) - side for side in x.shape[2:])
    return T.pad(x, (pad, pad + right, pad, pad + below))


def _upsampled(scores: Tensor, deconv: BilinearDeconv2d) -> Tensor:
    weight, groups = deconv.weight, 1
    if not deconv._learned():
        weight, groups = deconv._depthwise(), scores.shape[1]
    return T.conv_transpose2d(scores, weight, stride=deconv.stride, groups=groups)


def _window(x: Tensor, start: int, size: Sequence[int]) -> Tensor:
    """`size` rows and columns of N,C,H,W from `start` on. A negative pad, since a slice compares its end with H."""
    (height, width), (rows, columns) = x.shape[2:], size
    return T.pad(x, (-start, start + columns - width, -start, start + rows - height))
