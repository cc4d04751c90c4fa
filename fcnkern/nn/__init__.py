"""The operations as modules."""

from fcnkern.nn.conv import Conv1x1, UpsampleAdd
from fcnkern.nn.loss import UpsampleCrossEntropyLoss
from fcnkern.nn.predict import UpsampleArgmax

__all__ = ["Conv1x1", "UpsampleAdd", "UpsampleArgmax", "UpsampleCrossEntropyLoss"]
