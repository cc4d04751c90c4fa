"""Labels out of range: a kernel reports one without stopping, and the next call raises.

A kernel that meets a label which is neither a class nor ignored treats the pixel as ignored and stores two words,
``1 + index of the pixel`` and the label, to memory that the host reads without synchronising (a third word is for the
kernels, which may claim the report with it). Every call looks there
first. In the interpreter the words are there when the kernel returns, and the same call raises.
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.backends.errors import label_error

_PLACES = 1024
"""Reports of a device: as many as launches wait in a queue, so that no kernel is left that uses one taken anew."""


class _Place(NamedTuple):
    """What a report refers to."""

    name: str
    height: int
    width: int
    num_classes: int
    ignore_index: int | None


class _Reports:
    """The reports of one device. A new place takes the one that was not asked for the longest."""

    def __init__(self, device: torch.device) -> None:
        # A fourth word, unused, for pointers of one alignment, on which Triton specialises.
        pinned = device.type != "cpu"
        self.words = torch.zeros(_PLACES, 4, dtype=torch.int64, device="cpu", pin_memory=pinned)
        self.array = self.words.numpy()
        self.rows: dict[_Place, int] = {}

    def row(self, place: _Place) -> Tensor:
        row = self.rows.pop(place, len(self.rows))
        if row == _PLACES:
            row = self.rows.pop(next(iter(self.rows)))
        self.rows[place] = row
        return self.words[row]

    def take(self) -> tuple[_Place, int, int] | None:
        """What a place's kernel has met: the index of the pixel and the label."""
        if not self.array[: len(self.rows), 0].any():
            return None
        place, row = next((place, row) for place, row in self.rows.items() if self.array[row, 0])
        index, label = int(self.array[row, 0]) - 1, int(self.array[row, 1])
        self.array[row] = 0
        return place, index, label


_reports: dict[torch.device, _Reports] = {}
_lock = Lock()


def label_flag(name: str, labels: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Int64 words, of which three are used, in pinned host memory for a kernel that reads N×H×W ``labels``.

    Raises:
        ValueError: an earlier call on this device met a label out of range.
    """
    raise_reported(labels.device)
    place = _Place(name, labels.shape[1], labels.shape[2], num_classes, ignore_index)
    with _lock:
        if labels.device not in _reports:
            _reports[labels.device] = _Reports(labels.device)
        return _reports[labels.device].row(place)


def raise_reported(device: torch.device) -> None:
    """Raises what a finished kernel on ``device`` has reported; never waits for one that has not finished.

    Raises:
        ValueError: naming the tensor, the label and its position.
    """
    with _lock:
        reports = _reports.get(device)
        report = None if reports is None else reports.take()
    if report is None:
        return
    place, index, label = report
    row = index // place.width
    position = (row // place.height, row % place.height, index % place.width)
    raise label_error(place.name, label, position, place.num_classes, place.ignore_index)
