"""How the fused loss divides the cells of low-resolution scores among programs of one warp."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fcnkern.backends._axes import Cells, cells
from fcnkern.backends._loss_call import Pixels

STEEP = 34.0
"""Largest jump between neighbouring corners, in nats, that geometric sequences take (steps of half a cell at most).

With J = 49 bits a sum of exponentials is at least 2^-J, no Horner sum exceeds 2^(2 J + 6), what is flushed to zero at
a cell's first pixel is at most 2^(2 J - 126) of a sum elsewhere, and the twist is at most 2 J · step_y · step_x bits.
"""


class LossGrid(NamedTuple):
    """How the cells are divided among programs."""

    y: Cells
    x: Cells
    x_begin: int
    """The first column of cells: one before the first with an output, so that each touched point has an owner."""
    lanes: int
    columns: int
    """Lanes of one image."""
    strips: int
    band: int
    """Rows of cells."""
    bands: int

    @property
    def rows(self) -> int:
        """Rows of parts of cells."""
        return (self.y.end - self.y.begin) * self.y.parts

    @property
    def steepest(self) -> float:
        """Largest jump that geometric sequences take here: of longer steps the second may leave the cell."""
        return STEEP * (0.5 / max(0.5, self.y.step, self.x.step))

    @staticmethod
    def of(scores: Tensor, pixels: Pixels, resident_warps: int) -> LossGrid:
        """One wave of programs where the cells suffice for that."""
        size = (pixels.target.shape[1], pixels.target.shape[2])
        axes = pixels.call.resample.axes((scores.shape[2], scores.shape[3]), size)
        y, x = (cells(axis, scores.device) for axis in axes)
        x_begin = max(0, x.begin - 1)
        columns = (x.end - x_begin) * x.parts
        lanes = max(32, x.parts)
        strips = -(-scores.shape[0] * columns // lanes)
        rows = y.end - y.begin
        bands = min(rows, max(1, resident_warps // strips))
        band = -(-rows // bands)
        return LossGrid(y, x, x_begin, lanes, columns, strips, band, -(-rows // band))
