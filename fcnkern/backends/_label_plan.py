"""What the launchers of a label map's kernels share: the geometry and the arguments that follow from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.backends._axes import Cells, Taps, cells, taps
from fcnkern.backends._limits import check_classes
from fcnkern.resample import Pair, Resample


class Plan(NamedTuple):
    """Scores (N, C, h, w) and how they become (H, W) labels."""

    scores: Tensor
    size: Pair
    y: Cells
    x: Cells
    columns: Taps
    zero: bool
    skip_zero: bool

    @property
    def rows(self) -> int:
        """Rows of cell parts of an image."""
        return (self.scores.shape[2] + 1) * self.y.parts

    @property
    def parts(self) -> int:
        """Cell parts of such a row."""
        return (self.scores.shape[3] + 1) * self.x.parts

    @property
    def cell_parts(self) -> int:
        """Cell parts of all images."""
        return self.scores.shape[0] * self.rows * self.parts

    @property
    def upsamples(self) -> bool:
        """Whether there are more outputs than points, so that the argmax of the points saves work."""
        return self.size[0] * self.size[1] > self.scores.shape[2] * self.scores.shape[3]


def plan(backend: str, scores: Tensor, resample: Resample, size: Pair) -> Plan:
    """The plan of a call; ``backend`` is the name for errors.

    Raises:
        ValueError: too many classes.
    """
    check_classes(backend, "scores", scores.shape[1])
    rows, columns = resample.axes((scores.shape[2], scores.shape[3]), size)
    device = scores.device
    tables = cells(rows, device), cells(columns, device), taps(columns, device)
    return Plan(scores, size, *tables, rows.zero, resample.kind in {"deconv", "identity"})


def can_ignore(target: Tensor, ignore_index: int | None) -> bool:
    """Whether a label of the target can be ``ignore_index``."""
    limits = torch.iinfo(target.dtype)
    return ignore_index is not None and limits.min <= ignore_index <= limits.max
