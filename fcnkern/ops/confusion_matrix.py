"""confusion_matrix: counts of (truth, prediction), from label maps or straight from scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fcnkern.backends.select import implementation
from fcnkern.ops import _checks as checks
from fcnkern.ops._library import Operator
from fcnkern.ops._resampled import check_resampled
from fcnkern.resample import Resample


def confusion_matrix(
    prediction: Tensor,
    target: Tensor,
    num_classes: int | None = None,
    *,
    resample: Resample | None = None,
    ignore_index: int = 255,
    backend: str | None = None,
) -> Tensor:
    """Counts how often each class was predicted where each class was true.

    The n_ij of Long et al. 2015, section 5, over all pixels whose target is not ``ignore_index``.

    Args:
        prediction: N×H×W labels (uint8, int16, int32 or int64), or with ``resample`` N×C×h×w low-resolution
            scores: then argmax and histogram are one pass and no label map is stored.
        target: N×H×W labels, uint8, int16, int32 or int64.
        num_classes: C; needed with label maps, and otherwise that of the scores.
        resample: how scores become H×W.
        ignore_index: target label of pixels that do not count.
        backend: name that forces a backend.

    Returns:
        C×C int64 counts [truth, prediction].

    Raises:
        TypeError, ValueError: an argument has another type, rank, shape or device than stated above, or a counted
            pixel has a label outside 0..C-1.
    """
    checks.check_images("target", target, 3, checks.LABELS)
    dims, types = (3, checks.LABELS) if resample is None else (4, checks.FLOATS)
    checks.check_images("prediction", prediction, dims, types)
    checks.check_device("target", target, "prediction", prediction)
    if resample is None:
        checks.check_shape("prediction", prediction, tuple(target.shape), "the shape of target")
        if num_classes is None:
            raise ValueError("num_classes is needed where prediction is a label map")
        classes, spec = checks.as_whole("num_classes", num_classes), None
    else:
        check_resampled(prediction, None, resample, (target.shape[1], target.shape[2]))
        classes, spec = prediction.shape[1], resample.spec
        height, width = resample.size or (target.shape[1], target.shape[2])
        wanted = (prediction.shape[0], height, width)
        checks.check_shape("target", target, wanted, "images of prediction × size of resample")
        if num_classes not in (None, classes):
            raise ValueError(f"num_classes must be {classes} (channels of prediction), got {num_classes}")
    checks.check_ignore_index(ignore_index)
    if classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {classes}")
    return _OP(prediction.detach(), target, classes, spec, ignore_index, backend)


def _compute(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    resample: str | None,
    ignore_index: int,
    backend: str | None,
) -> Tensor:
    run = implementation("confusion_matrix", prediction, backend)
    shape = None if resample is None else Resample.parse(resample)
    return run.confusion_matrix(prediction, target, num_classes, shape, ignore_index)


def _fake(prediction: Tensor, target: Tensor, num_classes: int, *rest: Any) -> Tensor:
    return prediction.new_empty((num_classes, num_classes), dtype=torch.int64)


_OP = Operator(
    "confusion_matrix",
    "(Tensor prediction, Tensor target, SymInt num_classes, str? resample, int ignore_index, str? backend) "
    "-> Tensor",
    _compute,
    _fake,
)
