"""The operations as modules."""

from fcnkern.nn.conv import Conv1x1, UpsampleAdd
from fcnkern.nn.loss import UpsampleCrossEntropyLoss
from fcnkern.nn.pool import MaxPool2d
from fcnkern.nn.predict import UpsampleArgmax

__all__ = ["Conv1x1", "MaxPool2d", "UpsampleAdd", "UpsampleArgmax", "UpsampleCrossEntropyLoss"]
