"""`confusion_matrix` with the CUDA C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends._arguments import label_map
from fcnkern.backends._label_plan import can_ignore
from fcnkern.backends._labels import label_flag, raise_reported
from fcnkern.backends._limits import check_classes
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.backends.cuda._label_tiles import label_tiles
from fcnkern.resample import Resample

_MOST_COPIES = 64
_MOST_COUNTS = 1 << 19


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, resample: Resample | None, ignore_index: int | None
) -> Tensor:
    """Counts [truth, prediction], int64 (num_classes, num_classes), over the pixels that are not ignored.

    ``prediction`` is a label map like ``target`` (N, H, W), or, with ``resample``, scores (N, C, h, w).

    Memory: none beside the result up to 64 classes; with more, up to 64 copies of the matrix, 4 MiB at most where
    there are several. A label out of range, of the target or of the prediction at a counted pixel, is left out and
    raises at the next call.

    Raises:
        ValueError: too many classes; an earlier call on this device met a label out of range.
    """
    check_classes("CUDA", "num_classes", num_classes)
    copies = _copies(num_classes)
    counts = torch.zeros(copies, num_classes, num_classes, dtype=torch.int64, device=target.device)
    if target.numel() > 0:
        _count(prediction, target, counts, resample, ignore_index)
        if target.device.type == "cpu":
            raise_reported(target.device)
    return counts[0] if copies == 1 else counts.sum(0)


def _copies(classes: int) -> int:
    """How many copies of the matrix blocks add to; one where they count in shared memory first."""
    if classes <= kernels.CONFUSION_SHARED_CLASSES:
        return 1
    return max(1, min(_MOST_COPIES, _MOST_COUNTS // classes**2))


def _count(
    prediction: Tensor,
    target: Tensor,
    counts: Tensor,
    resample: Resample | None,
    ignore_index: int | None,
) -> None:
    copies, classes, _ = counts.shape
    ignored = ignore_index if can_ignore(target, ignore_index) else None
    params = (
        label_map(target),
        tuple(target.shape),
        classes,
        ignored,
        counts.data_ptr(),
        copies,
        label_flag("target", target, classes, ignore_index).data_ptr(),
    )
    stream = stream_of(target)
    if resample is None:
        flag = label_flag("prediction", target, classes, None)
        kernels.confusion_matrix_labels_fwd(params, label_map(prediction), flag.data_ptr(), stream)
    else:
        tiles = label_tiles(prediction, resample, (target.shape[1], target.shape[2]))
        kernels.confusion_matrix_scores_fwd(params, tiles, stream)
