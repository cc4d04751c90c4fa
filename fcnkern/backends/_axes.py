"""Per-axis tables of a `Resample`, on the device: the taps of each output, and the outputs of each cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fcnkern.backends._tables import kept_tables, to_device
from fcnkern.resample import Axis

MAX_SLOTS = 8
"""Most outputs per axis that a kernel treats as one part of a cell."""


class Taps(NamedTuple):
    """Output Y reads points ``point[Y]`` and ``point[Y] + 1`` of the source, the second with weight ``fraction[Y]``.

    Positions are not clamped: a point outside the source stands for the border point, or for 0 where the axis says
    ``zero``.
    """

    point: Tensor
    fraction: Tensor


class Cells(NamedTuple):
    """The outputs between neighbouring points of the source.

    Cell ``k`` of 0..n_in lies between points k - 1 and k. It is cut into ``parts`` parts of at most ``slots``
    outputs; part p is entry ``k * parts + p`` of the tables. Output ``first + r`` of a part lies at the fraction
    ``start + r * step`` of the way from point k - 1 to point k.
    """

    slots: int
    parts: int
    """A power of two."""
    step: float
    begin: int
    """The first cell that has an output."""
    end: int
    """One past the last cell that has an output."""
    first: Tensor
    counts: Tensor
    start: Tensor


_SNAP = 1e-9
"""Rounding of step and shift must not open a cell before its left point, whose neighbour may be infinite."""


def _positions(axis: Axis) -> np.ndarray:
    position = np.arange(axis.n_out, dtype=np.float64) * axis.step + axis.shift
    point = np.rint(position)
    return np.where(np.abs(position - point) < _SNAP, point, position)


@kept_tables(128)
def taps(axis: Axis, device: torch.device) -> Taps:
    """The `Taps` of an axis: int32 and fp32 tensors of n_out entries."""
    position = _positions(axis)
    point = np.floor(position)
    return Taps(to_device(point, torch.int32, device), to_device(position - point, torch.float32, device))


@kept_tables(128)
def cells(axis: Axis, device: torch.device) -> Cells:
    """The `Cells` of an axis: tables of (n_in + 1) * parts entries, int32, int32 and fp32."""
    position = _positions(axis)
    cell = np.clip(np.floor(position).astype(np.int64) + 1, 0, axis.n_in)
    edges = np.searchsorted(cell, np.arange(axis.n_in + 2))
    most = int(np.diff(edges).max())
    parts = 1
    while parts * MAX_SLOTS < most:
        parts *= 2
    slots = -(-most // parts)
    first = edges[:-1, None] + np.arange(parts) * slots
    counts = np.clip(edges[1:, None] - first, 0, slots)
    start = position[np.minimum(first, axis.n_out - 1)] - (np.arange(axis.n_in + 1)[:, None] - 1)
    tables = (
        to_device(first.ravel(), torch.int32, device),
        to_device(counts.ravel(), torch.int32, device),
        to_device(start.ravel(), torch.float32, device),
    )
    return Cells(slots, parts, axis.step, int(cell[0]), int(cell[-1]) + 1, *tables)
