"""Which cells of each map of a chain of layers the image can influence, and which must be computed: along one axis.

A chain that pads the image by a lot computes, for the most part of its first maps, what it would compute for an image
of zeros. Everything here is whole numbers: intervals of cells of the *canvas*, the map that the plain chain holds at
that depth ("level" i is the map behind i layers, level 0 the padded image).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from fcnkern.models.geometry import Layer


class Span(NamedTuple):
    """The cells start ... stop - 1 of a canvas."""

    start: int
    stop: int

    def hull(self, other: Span) -> Span:
        return Span(min(self.start, other.start), max(self.stop, other.stop))

    def within(self, other: Span) -> Span:
        return Span(max(self.start, other.start), min(self.stop, other.stop))


class Canvas(NamedTuple):
    """One axis of a map of the plain chain.

    For an image of zeros the map ("blank") is constant from cell `left` to cell `size - right - 1`: only cells
    outside feel the end of the canvas, through zero padding. So L + 1 + R lines tell all of a blank of any size.

    Attributes:
        size: cells N.
        live: those that the image can influence.
        left, right: cells at either end that can feel the end of the canvas, L and R.
    """

    size: int
    live: Span
    left: int = 0
    right: int = 0

    @property
    def whole(self) -> Span:
        return Span(0, self.size)

    @property
    def distinct(self) -> int:
        """Lines that tell all of the blank."""
        return self.left + 1 + self.right

    def through(self, layer: Layer) -> Canvas:
        """The canvas behind a layer."""
        size, stride = layer.output_size(self.size), layer.stride
        first = _ceil_div(self.live.start + layer.pad - layer.span + 1, stride)
        last = (self.live.stop - 1 + layer.pad) // stride
        inner = (self.size - self.right + layer.pad - layer.span) // stride
        # A pool's window over the end takes the maximum of fewer cells, which are all the same where R is 0.
        right = 0 if layer.ceil and self.right == 0 else size - 1 - inner
        left = _ceil_div(self.left + layer.pad, stride)
        return Canvas(size, Span(max(0, first), min(size, last + 1)), min(size, left), min(size, right))


class AxisPlan(NamedTuple):
    """What to compute of each map along one axis. Lists by level have one entry more than those by layer.

    Attributes:
        layers: the chain; of the first one the padding is taken off and counts to the canvas.
        canvases: by level.
        computed: by level, the cells that the layer before is computed for (of level 0: the image).
        held: by level, the cells there must be: `computed`, extended by cells of the blank.
        reads: by layer, the cells of its input that it is given.
        pads: by layer, zeros that it must be given at either end on top of those.
        fed: by layer, lines of the blank that it is given.
    """

    layers: tuple[Layer, ...]
    canvases: tuple[Canvas, ...]
    computed: tuple[Span, ...]
    held: tuple[Span, ...]
    reads: tuple[Span, ...]
    pads: tuple[tuple[int, int], ...]
    fed: tuple[int, ...]

    def is_whole(self, layer: int) -> bool:
        """Whether a layer is computed for the whole canvas."""
        return self.computed[layer + 1] == self.canvases[layer + 1].whole

    def band(self, level: int, cells: Span) -> AxisPlan:
        """The plan up to a level of which only these cells, a part of the computed ones, are wanted.

        Up to there must be no blank cells round any map. Of level 0 it still holds all.
        """
        computed, held = list(self.computed), list(self.held)
        reads, pads = list(self.reads), list(self.pads)
        for index in reversed(range(level)):
            computed[index + 1] = held[index + 1] = cells
            reads[index], pads[index] = _read(self.layers[index], cells, self.canvases[index])
            cells = reads[index]
        return self._replace(computed=tuple(computed), held=tuple(held), reads=tuple(reads), pads=tuple(pads))


@lru_cache(maxsize=512)
def axis_plan(
    layers: tuple[Layer, ...], size: int, margin: tuple[int, int] = (0, 0), taps: Collection[int] = ()
) -> AxisPlan:
    """The plan for one axis of an image.

    Blank cells are put round the map behind each layer with a stride and round each tap, except from the last
    layer with a stride on: there the image has reached nearly everything, and the blank would cost more than it
    saves.

    Args:
        layers: convolutions, and max pools without padding; layers that act on each pixel alone are `Layer(1)`.
        size: of the image, in pixels.
        margin: zeros before and behind the image.
        taps: levels of which the whole map is wanted, a tuple; the last level always is.

    Raises:
        ValueError: a layer has no output for this size, or one behind the first pads by as much as its kernel spans.
    """
    before, behind = (zeros + layers[0].pad for zeros in margin)
    layers = (layers[0]._replace(pad=0), *layers[1:])
    canvases = [Canvas(before + size + behind, Span(before, before + size))]
    for index, layer in enumerate(layers):
        if layer.pad >= layer.span:
            raise ValueError(
                f"layer {index} pads by {layer.pad}, which must be less than its span {layer.span}"
            )
        canvases.append(canvases[-1].through(layer))
        if canvases[-1].size < 1:
            raise ValueError(f"layer {index} has no output for an image of {size} pixels")
    tapped = {*taps, len(layers)}
    computed, held, reads, pads = _demand(layers, canvases, tapped, _rings(layers, tapped))
    return AxisPlan(layers, tuple(canvases), computed, held, reads, pads, _blank_lines(layers, canvases))


def _rings(layers: tuple[Layer, ...], tapped: set[int]) -> set[int]:
    """Levels at which blank cells are put round what is computed."""
    strided = [level for level, layer in enumerate(layers, 1) if layer.stride > 1]
    return {level for level in (*strided, *tapped) if level < max(strided, default=0)}


def _demand(
    layers: tuple[Layer, ...], canvases: list[Canvas], tapped: set[int], rings: set[int]
) -> tuple[tuple[Span, ...], tuple[Span, ...], tuple[Span, ...], tuple[tuple[int, int], ...]]:
    """`computed`, `held`, `reads` and `pads`, walked back from the last level."""
    spans = [(canvases[-1].whole, canvases[-1].whole)]
    inputs: list[tuple[Span, tuple[int, int]]] = []
    for level in range(len(layers), 0, -1):
        layer, (computed, _), before = layers[level - 1], spans[-1], canvases[level - 1]
        inputs.append(_read(layer, computed, before))
        reads = inputs[-1][0]
        if level == 1:
            spans.append((before.live, reads.hull(before.live)))
            break
        held = before.whole if level - 1 in tapped else reads
        spans.append((_live_part(held, before.live) if level - 1 in rings else held, held))
    all_computed, all_held = zip(*reversed(spans), strict=True)
    all_reads, all_pads = zip(*reversed(inputs), strict=True)
    return all_computed, all_held, all_reads, all_pads


def _read(layer: Layer, computed: Span, before: Canvas) -> tuple[Span, tuple[int, int]]:
    """The cells of its input that a layer reads for some of its output, and the zeros at either end of them."""
    start = computed.start * layer.stride - layer.pad
    stop = (computed.stop - 1) * layer.stride - layer.pad + layer.span
    reads = Span(start, stop).within(before.whole)
    return reads, (reads.start - start, stop - reads.stop)


def _live_part(wanted: Span, live: Span) -> Span:
    """The wanted cells that the image influences, or one cell where there are none: a map needs at least one."""
    part = wanted.within(live)
    return part if part.start < part.stop else Span(wanted.start, wanted.start + 1)


def _blank_lines(layers: tuple[Layer, ...], canvases: list[Canvas]) -> tuple[int, ...]:
    """How many lines of the blank each layer is given: as few as let its output have all that are distinct.

    A canvas of N lines and one of N - stride·j lines give the same blank but for j constant lines. Layers with
    stride 1 give as many as the next one is given, so that only maps behind a stride have to be stretched.
    """
    fed: list[int] = []
    for index in reversed(range(len(layers))):
        stride, before, behind = layers[index].stride, canvases[index], canvases[index + 1]
        least = max(behind.distinct, fed[-1]) if stride == 1 and fed else behind.distinct
        fed.append(min(before.size, before.size - stride * (behind.size - least)))
    return tuple(reversed(fed))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
