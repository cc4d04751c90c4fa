"""Labels out of range: a kernel reports one without stopping, and the next call raises.

A kernel that meets a label which is neither a class nor ignored treats the pixel as ignored and stores two words,
``1 + index of the pixel`` and the label, to memory that the host reads without synchronising (a third word is for the
kernels, which may claim the report with it). Every call looks there
first. In the interpreter the words are there when the kernel returns, and the same call raises.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.backends.errors import label_error


class _Place(NamedTuple):
    """What a report refers to."""

    device: torch.device
    name: str
    height: int
    width: int
    num_classes: int
    ignore_index: int | None


_reports: dict[_Place, Tensor] = {}


def label_flag(name: str, labels: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Three int64 words in pinned host memory for a kernel that reads N×H×W ``labels``.

    Raises:
        ValueError: an earlier call on this device met a label out of range.
    """
    raise_reported(labels.device)
    place = _Place(labels.device, name, labels.shape[1], labels.shape[2], num_classes, ignore_index)
    if place not in _reports:
        _reports[place] = torch.zeros(3, dtype=torch.int64, pin_memory=labels.device.type != "cpu")
    return _reports[place]


def raise_reported(device: torch.device) -> None:
    """Raises what a finished kernel on ``device`` has reported; never waits for one that has not finished.

    Raises:
        ValueError: naming the tensor, the label and its position.
    """
    for place, report in _reports.items():
        if place.device != device or int(report[0]) == 0:
            continue
        index, label = int(report[0]) - 1, int(report[1])
        report.zero_()
        row = index // place.width
        position = (row // place.height, row % place.height, index % place.width)
        raise label_error(place.name, label, position, place.num_classes, place.ignore_index)
