"""confusion_matrix in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.backends.errors import label_error
from fcnkern.backends.reference.upsample_argmax import upsample_argmax
from fcnkern.resample import Resample


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, resample: Resample | None, ignore_index: int
) -> Tensor:
    """C×C int64 counts [truth, prediction]."""
    if resample is not None:
        size = (target.shape[1], target.shape[2])
        prediction, _ = upsample_argmax(prediction, None, resample, size, torch.int64, False)
    counted = target.long() != ignore_index
    for name, labels, ignored in (("target", target, ignore_index), ("prediction", prediction, None)):
        wide = labels.long()
        wrong = counted & ((wide < 0) | (wide >= num_classes))
        if bool(wrong.any()):
            n, y, x = (int(i) for i in wrong.nonzero()[0])
            raise label_error(name, int(wide[n, y, x]), (n, y, x), num_classes, ignored)
    pairs = target.long()[counted] * num_classes + prediction.long()[counted]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
