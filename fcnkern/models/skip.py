"""The layers of the head: by kernels, several at once, or one by one as modules where something looks at them."""

from __future__ import annotations

from torch import Tensor, nn

from fcnkern import functional as F
from fcnkern.models.alignment import Step
from fcnkern.models.layers import BilinearDeconv2d, is_conv1x1, is_observed


def score(classifier: nn.Module, features: Tensor, scale: float = 1.0) -> Tensor:
    """The scores of ``scale * features``."""
    if not is_conv1x1(classifier):
        return classifier(features if scale == 1 else features * scale)
    weight = classifier.weight if scale == 1 else classifier.weight * scale
    return F.conv1x1(features, weight, classifier.bias)


def upsample(deconv: BilinearDeconv2d, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """The transposed convolution of ``x``, uncropped, plus a skip of its size."""
    if is_observed(deconv):
        return deconv(x) if skip is None else deconv(x) + skip
    return F.upsample_add(x, deconv.step_weight(), skip, stride=deconv.stride[0])


def add_skip(
    coarse: Tensor, deconv: BilinearDeconv2d, step: Step, skip: Tensor, classifier: nn.Module, scale: float
) -> Tensor:
    """Upsampled ``coarse`` plus the scores of ``scale * skip``, where both are; the rest of either is cropped."""
    offset = step.offset
    height, width = (step.layer.output_size(side) for side in coarse.shape[2:])
    within = 0 <= offset <= min(skip.shape[2] - height, skip.shape[3] - width)
    if within and is_conv1x1(classifier) and not is_observed(deconv):
        return F.upsample_add(
            coarse,
            deconv.step_weight(),
            skip,
            stride=step.factor,
            skip_offset=offset,
            skip_weight=classifier.weight,
            skip_bias=classifier.bias,
            skip_scale=scale,
        )
    beyond = (width + offset - skip.shape[3], height + offset - skip.shape[2])
    scores = score(classifier, skip, scale)
    aligned = nn.functional.pad(scores, (-offset, beyond[0], -offset, beyond[1]))
    summed = upsample(deconv, coarse, aligned)
    start = max(0, -offset)
    return summed[:, :, start : height - max(0, beyond[1]), start : width - max(0, beyond[0])]
