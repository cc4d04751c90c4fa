"""`confusion_matrix` with the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends.cpu._arguments import MAX_CLASSES, label_map
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
    if num_classes > MAX_CLASSES:
        raise ValueError(f"num_classes: at most {MAX_CLASSES} on the CPU, got {num_classes}")
    n, h, w = target.shape
    matrix = torch.empty(num_classes, num_classes, dtype=torch.int64)
    labels, threads = label_map(target), torch.get_num_threads()
    error = kernels.confusion_matrix(
        label_map(prediction), labels, (n, h, w), num_classes, ignore_index, matrix.data_ptr(), threads
    )
    if error is not None:
        index, value, in_target = error
        position = (index // (h * w), index // w % h, index % w)
        name = "target" if in_target else "prediction"
        raise label_error(name, value, position, num_classes, ignore_index if in_target else None)
    return matrix
