"""The operations as functions."""

from fcnkern.ops.confusion_matrix import confusion_matrix
from fcnkern.ops.conv1x1 import conv1x1
from fcnkern.ops.max_pool2d import max_pool2d
from fcnkern.ops.upsample_add import upsample_add
from fcnkern.ops.upsample_argmax import upsample_argmax
from fcnkern.ops.upsample_cross_entropy import upsample_cross_entropy

__all__ = [
    "confusion_matrix",
    "conv1x1",
    "max_pool2d",
    "upsample_add",
    "upsample_argmax",
    "upsample_cross_entropy",
]
