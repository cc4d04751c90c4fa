"""`confusion_matrix` with the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._arguments import label_map, upsampling
from fcnkern.backends._limits import check_classes
from fcnkern.backends.cpu._extension import kernels
from fcnkern.backends.errors import label_error
from fcnkern.resample import Resample


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, resample: Resample | None, ignore_index: int | None
) -> Tensor:
    """Counts [truth, prediction], int64 (num_classes, num_classes), over the pixels that are not ignored.

    ``prediction`` is a label map like ``target`` (N, H, W), or, with ``resample``, scores (N, C, h, w).

    Raises:
        ValueError: a target label that is neither a class nor ``ignore_index``, a prediction at a counted
            pixel that is no class, or too many classes.
    """
    check_classes("CPU", "num_classes", num_classes)
    n, h, w = target.shape
    matrix = torch.empty(num_classes, num_classes, dtype=torch.int64, device=target.device)
    settings = (n, h, w), num_classes, ignore_index, matrix.data_ptr(), torch.get_num_threads()
    if resample is None:
        error = kernels.confusion_of_labels(label_map(prediction), label_map(target), *settings)
    else:
        scores = upsampling(prediction, resample, (h, w))
        error = kernels.confusion_of_scores(scores, label_map(target), *settings)
    if error is not None:
        index, value, in_target = error
        position = (index // (h * w), index // w % h, index % w)
        name = "target" if in_target else "prediction"
        raise label_error(name, value, position, num_classes, ignore_index if in_target else None)
    return matrix
