"""The maps of a chain of layers without the work that the image has no part in.

A body that pads by 100 spends a third to half of its work on margins where it computes, again and again, what
it computes for an image of zeros. Here only what the image influences is computed, and behind each stage the
margin is put round it: cells of a small map for an image of zeros ("blank"), which the same layers compute in the
same call. So the maps, and the gradients of every weight and of the image, are those of the plain chain but for
rounding, and nothing is kept from one call to the next. The first stage, whose maps are the largest, is computed in
two bands of rows, of which one is held at a time beside what gradients need. `fcnkern.models.elision_plan` has the
geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor, nn

from fcnkern.models.body import Chain
from fcnkern.models.elision_chain import check_hooks, check_part, geometry
from fcnkern.models.elision_plan import AxisPlan, Canvas, Span, axis_plan
from fcnkern.models.layers import is_one_pass

Pads = tuple[int, int, int, int]
"""Left, right, top, bottom, as `torch.nn.functional.pad` takes them."""
Operation = Callable[[Tensor, Pads], Tensor]
"""What a layer does to a part of its map that has yet to be padded."""


def elided_features(chain: Chain, x: Tensor, margins: Pads) -> dict[str, Tensor]:
    """The feature maps at the taps of `chain`, equal to those of the plain body up to rounding.

    Args:
        x: images N,C,H,W.
        margins: zeros to think of around the images.

    Raises:
        RuntimeError: where the result would be another: batch statistics or dropout in a layer of which only a
            part is computed, or hooks, which would be given parts of maps.
        ValueError: a layer cannot be computed in part (`geometry`), or images are too small for the chain.
    """
    check_hooks(chain)
    of_rows, of_columns = geometry(chain)
    taps = tuple(chain.taps.values())
    rows = axis_plan(of_rows, x.shape[2], margins[2:], taps)
    columns = axis_plan(of_columns, x.shape[3], margins[:2], taps)
    maps = _Run(chain, rows, columns).maps(x)
    return {
        name: chain.tails[name](maps[at]) if name in chain.tails else maps[at]
        for name, at in chain.taps.items()
    }


class _Run:
    """One run of a chain, for images of one size."""

    def __init__(self, chain: Chain, rows: AxisPlan, columns: AxisPlan) -> None:
        self.layers, self.tapped = chain.layers, set(chain.taps.values())
        self.rows, self.columns = rows, columns
        levels = range(len(self.layers) + 1)
        self.ringed = {
            at for at in levels[1:] if any(axis.held[at] != axis.computed[at] for axis in (rows, columns))
        }
        self.blank_until = max(self.ringed, default=0)

    def maps(self, x: Tensor) -> dict[int, Tensor]:
        """The maps at the tapped levels, by level."""
        rows, columns = self.rows, self.columns
        operations = [self._operation(index, x) for index in range(len(self.layers))]
        blank = x.new_zeros(1, x.shape[1], rows.fed[0], columns.fed[0])
        x = _pad(x, (*_around(columns, 0), *_around(rows, 0)))
        banded = self._banded_until()
        if banded:
            x = self._in_bands(x, operations[:banded])
        found = {}
        for index, operation in enumerate(operations):
            if index >= banded:
                x = self._part(x, index, rows, operation)
            if index < self.blank_until:
                blank = operation(self._fed(blank, index), self._own_pads(index))
            if index + 1 in self.ringed:
                x = self._with_ring(x, blank, index + 1)
            if index + 1 in self.tapped:
                found[index + 1] = x
        return found

    def _operation(self, index: int, x: Tensor) -> Operation:
        layer: Any
        name, layer = self.layers[index]
        if not self._is_whole(index):
            check_part(name, layer)
        if self._joins_next(index, x):
            return lambda x, pads: x
        if index > 0 and self._joins_next(index - 1, x):
            return lambda x, pads: layer.pooled(x, relu=True)
        return _operation(layer)

    def _joins_next(self, index: int, x: Tensor) -> bool:
        """Whether a layer is a ReLU that is computed with the pool behind it."""
        if index + 1 == len(self.layers) or index + 1 in self.tapped:
            return False
        return is_one_pass(self.layers[index][1], self.layers[index + 1][1], x)

    def _part(self, x: Tensor, index: int, rows: AxisPlan, operation: Operation) -> Tensor:
        """What a layer is computed for: along rows as `rows` says, which may be a band of the plan."""
        columns = self.columns
        x = _cells(x, 2, rows.reads[index], rows.held[index])
        x = _cells(x, 3, columns.reads[index], columns.held[index])
        return operation(x, (*columns.pads[index], *rows.pads[index]))

    def _banded_until(self) -> int:
        """The level up to which the maps, the largest, are computed in two bands: 0 where one of them is a tap."""
        level = min(self.ringed, default=0)
        rows = self.rows.computed[level]
        tapped = any(tap < level for tap in self.tapped)
        return 0 if tapped or rows.stop - rows.start < 2 else level

    def _in_bands(self, x: Tensor, operations: Sequence[Operation]) -> Tensor:
        """The computed part of the map behind the first layers, its upper rows first, then its lower ones."""
        level = len(operations)
        start, stop = self.rows.computed[level]
        bands = []
        for cells in (Span(start, (start + stop) // 2), Span((start + stop) // 2, stop)):
            rows = self.rows.band(level, cells)
            bands.append(self._band(x, rows, operations))
        return torch.cat(bands, 2)

    def _band(self, x: Tensor, rows: AxisPlan, operations: Sequence[Operation]) -> Tensor:
        """What the first layers give for some rows."""
        x = x.clone()  # a first layer that works in place must not change what the next run reads
        for index, operation in enumerate(operations):
            x = self._part(x, index, rows, operation)
        return x

    def _is_whole(self, index: int) -> bool:
        """Whether a layer is computed once, for the whole map."""
        return index >= self.blank_until and self.rows.is_whole(index) and self.columns.is_whole(index)

    def _own_pads(self, index: int) -> Pads:
        row, column = self.rows.layers[index].pad, self.columns.layers[index].pad
        return column, column, row, row

    def _fed(self, blank: Tensor, index: int) -> Tensor:
        """The blank with as many lines as the layer `index` is given."""
        for dim, axis in ((2, self.rows), (3, self.columns)):
            lines = axis.fed[index]
            if blank.shape[dim] != lines:
                blank = _of_blank(blank, dim, axis.canvases[index], lines, Span(0, lines))
        return blank

    def _with_ring(self, x: Tensor, blank: Tensor, level: int) -> Tensor:
        """The computed part of a map with blank cells put round it."""
        rows, columns = self.rows, self.columns
        (left, right), (top, bottom) = _beside(columns, level), _beside(rows, level)
        across = [self._patch(blank, level, rows.computed[level], left, x), x]
        x = _join([*across, self._patch(blank, level, rows.computed[level], right, x)], 3)
        down = [self._patch(blank, level, top, columns.held[level], x), x]
        return _join([*down, self._patch(blank, level, bottom, columns.held[level], x)], 2)

    def _patch(self, blank: Tensor, level: int, rows: Span, columns: Span, like: Tensor) -> Tensor | None:
        """Cells of the whole map for an image of zeros, for each image of the batch; None where there are none."""
        if rows.start == rows.stop or columns.start == columns.stop:
            return None
        for dim, axis, span in ((2, self.rows, rows), (3, self.columns, columns)):
            canvas = axis.canvases[level]
            blank = _of_blank(blank, dim, canvas, canvas.size, span)
        dense = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
        layout = torch.channels_last if dense else torch.contiguous_format
        # Of one layout, because torch.cat gives another when its parts differ.
        return blank.expand(like.shape[0], -1, -1, -1).contiguous(memory_format=layout)


def _of_blank(blank: Tensor, dim: int, canvas: Canvas, size: int, span: Span) -> Tensor:
    """Cells `span` of the blank as it is on a canvas of `size` lines; `blank` has it on one of any other number."""
    shift = blank.shape[dim] - size
    if shift == 0:
        return blank.narrow(dim, span.start, span.stop - span.start)
    start = span.within(Span(0, canvas.left))
    end = span.within(Span(size - canvas.right, size))
    middle = span.within(Span(canvas.left, size - canvas.right))
    parts = []
    if start.start < start.stop:
        parts.append(blank.narrow(dim, start.start, start.stop - start.start))
    if middle.start < middle.stop:
        shape = list(blank.shape)
        shape[dim] = middle.stop - middle.start
        parts.append(blank.narrow(dim, canvas.left, 1).expand(shape))
    if end.start < end.stop:
        parts.append(blank.narrow(dim, end.start + shift, end.stop - end.start))
    return torch.cat(parts, dim)  # also of one part: an expanded tensor must not be changed in place


def _join(parts: Sequence[Tensor | None], dim: int) -> Tensor:
    present = [part for part in parts if part is not None]
    return present[0] if len(present) == 1 else torch.cat(present, dim)


def _cells(x: Tensor, dim: int, wanted: Span, held: Span) -> Tensor:
    """The wanted cells of a map that holds others too."""
    return x if wanted == held else x.narrow(dim, wanted.start - held.start, wanted.stop - wanted.start)


def _beside(axis: AxisPlan, level: int) -> tuple[Span, Span]:
    """The cells before and behind the computed ones."""
    computed, held = axis.computed[level], axis.held[level]
    return Span(held.start, computed.start), Span(computed.stop, held.stop)


def _around(axis: AxisPlan, level: int) -> tuple[int, int]:
    """How many cells there are before and behind the computed ones."""
    before, behind = _beside(axis, level)
    return before.stop - before.start, behind.stop - behind.start


def _pad(x: Tensor, pads: Pads) -> Tensor:
    return T.pad(x, pads) if any(pads) else x


def _operation(layer: nn.Module) -> Operation:
    """Weights are read once, for all parts."""
    if not isinstance(layer, nn.Conv2d):
        return lambda x, pads: layer(x)  # a pool that rounds up reaches over the end by itself
    weight, bias = layer.weight, layer.bias

    def convolve(x: Tensor, pads: Pads) -> Tensor:
        left, right, top, bottom = pads
        padding = (top, left)
        if left != right or top != bottom:
            x, padding = _pad(x, pads), (0, 0)
        return T.conv2d(x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)

    return convolve
