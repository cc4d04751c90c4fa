"""Dense outputs of a coarse network without skips: shift-and-stitch and filter rarefaction (CVPR 2015 section 3.2).

A body of stride s gives one output each s pixels. Shift-and-stitch runs it on the image shifted by every offset
below s and interlaces the outputs. Rarefaction, the à trous algorithm, gives the same in one run: a layer's stride
becomes 1, and the filters behind it are spread, with zeros between their taps. Both keep the receptive fields and
see no finer detail than the network does, which is why the paper prefers skips (see `benchmarks/bench_density.py`).

The two are equal wherever an output's receptive field lies within the image, and everywhere for a network in which
at most the first layer pads. Elsewhere they differ, as a shifted image has features where the other has padding.
Every s-th output of either is the network's own, at the border too.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as T
from torch import Tensor, fx, nn

from fcnkern.models.graphs import described, is_pointwise, symbolic
from fcnkern.models.layers import CaffeLRN
from fcnkern.models.tracing import trace

_SAME_PIXEL = (nn.BatchNorm2d, nn.LocalResponseNorm, nn.Dropout2d, CaffeLRN)
"""Layers beside the pointwise ones that look at one pixel at a time."""


def shift_and_stitch(net: nn.Module, x: Tensor, to: int = 1) -> Tensor:
    """The outputs of a network for the image at every shift of `to` pixels below its stride, interlaced.

    A network of stride s is run (s/to)² times, on the images moved down and to the right by multiples of `to`, with
    zeros in front.

    Args:
        net: images N,C,H,W -> a feature map N,K,h,w; any module that `fcnkern.models.tracing` can trace.
        x: the images.
        to: stride of the result in pixels of the image.

    Returns:
        N,K,h',w', output (i, j) being the network's for the window that begins `to`·(i, j) pixels from its first one.
        All windows are there that the network has, so that h' is between (s/to)(h - 1) + 1 and (s/to)h.

    Raises:
        ValueError: `to` does not divide the network's stride; the network has no place on the image, see `trace`.
    """
    place = trace(net, lambda module, images: {"output": module(images)}, x.shape[1])["output"]
    counts = [_phases(path.stride, to) for path in (place.rows, place.columns)]
    sides = [
        min(each * path.sizes(size + shift * to) - shift for shift in range(each))
        for each, path, size in zip(counts, (place.rows, place.columns), x.shape[2:], strict=True)
    ]
    stitched: Tensor | None = None
    for down in range(counts[0]):
        for right in range(counts[1]):
            out = net(T.pad(x, (right * to, 0, down * to, 0)))
            if stitched is None:
                stitched = out.new_empty(*out.shape[:2], *sides)
            # The first output of a shifted image begins before the image.
            lattice = stitched[:, :, -down % counts[0] :: counts[0], -right % counts[1] :: counts[1]]
            rows, columns = (slice(min(1, shift), None) for shift in (down, right))
            lattice.copy_(out[:, :, rows, columns][:, :, : lattice.shape[2], : lattice.shape[3]])
    assert stitched is not None
    return stitched


def _phases(stride: int, to: int) -> int:
    if to < 1 or stride % to:
        raise ValueError(f"to must divide the network's stride of {stride}, got {to!r}")
    return stride // to


class _Grid(NamedTuple):
    """How dense a feature map of the rarefied network is along one axis.

    Attributes:
        spread: its values per value of the network's own map.
        stride: pixels of the image per value.
    """

    spread: int = 1
    stride: int = 1

    def through(self, stride: int, to: int) -> tuple[int, _Grid]:
        """What is kept of a layer's stride so that all of them together come to `to`, and the grid behind it."""
        kept = math.gcd(stride, to // self.stride)
        return kept, _Grid(self.spread * stride // kept, self.stride * kept)


_Two = tuple[int, int]
_Grids = tuple[_Grid, _Grid]
_Pool = nn.MaxPool2d | nn.AvgPool2d


def rarefy(net: nn.Module, to: int = 1) -> fx.GraphModule:
    """A network with strides taken out, beyond `to` in all, and the filters behind them dilated: à trous.

    Padding grows with the dilation. Pools that round sizes up see as far beyond the image as they did.

    Args:
        net: images N,C,H,W -> a feature map: a chain of convolutions, max and average pools, batch and local response
            normalisation and element-wise layers, as `nn.Sequential` or any forward that `torch.fx` can trace. Maps
            may be added or concatenated that are of one size without strides too. The bodies of this package are
            such networks. It is left as it is.
        to: stride of the result in pixels of the image.

    Returns:
        The network, with a copy of the weights under the same names. Its every (s/to)-th output is `net`'s own.

    Raises:
        ValueError: `to` does not divide the stride of `net`, or a layer cannot be spread; the message names it.
    """
    if to < 1:
        raise ValueError(f"to must be at least 1, got {to!r}")
    network = symbolic(net)
    _Rarefaction(network, to).run()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


class _Rarefaction:
    """Spreads the layers of a graph in the order in which it computes."""

    def __init__(self, network: fx.GraphModule, to: int) -> None:
        self.network, self.to = network, to
        self.layers = dict(network.named_modules())  # as they were
        self.grids: dict[fx.Node, _Grids] = {}
        self.done: set[str] = set()

    def run(self) -> None:
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                self.grids[node] = (_Grid(), _Grid())
            elif node.op == "output":
                self._check_stride(node.args[0])
            else:
                self.grids[node] = self._spread(node)

    def _spread(self, node: fx.Node) -> _Grids:
        """Spread one layer; the grids of its result along rows and columns."""
        call = self.layers[str(node.target)] if node.op == "call_module" else node.target
        joined = call is torch.cat and _along_channels(node)
        before = {self.grids[source] for source in node.all_input_nodes}
        if len(before) != 1:
            raise _refusal(node, call, "joins maps of different strides" if before else "has no input")
        (grid,) = before
        if joined or is_pointwise(call) or isinstance(call, _SAME_PIXEL):
            return grid
        if not isinstance(call, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            raise _refusal(node, call, "is no convolution, pool or layer that looks at one pixel at a time")
        strides = zip(grid, _pair(call.stride), strict=True)
        rows, columns = (each.through(stride, self.to) for each, stride in strides)
        kept = (rows[0], columns[0])
        if isinstance(call, nn.Conv2d):
            self._spread_convolution(node, call, kept, grid)
        else:
            self._replace(node, _spread_pool(node, call, kept, grid))
        return rows[1], columns[1]

    def _spread_convolution(self, node: fx.Node, conv: nn.Conv2d, kept: _Two, grid: _Grids) -> None:
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or node.target in self.done:
            raise _refusal(node, conv, "must pad by a number of zeros and be called once")
        self.done.add(str(node.target))
        conv.stride = kept
        conv.dilation, conv.padding = _times(conv.dilation, grid), _times(conv.padding, grid)

    def _replace(self, node: fx.Node, pool: nn.Module) -> None:
        name = str(node.target)
        while name in self.done:  # the network calls one pool more than once
            name += "_again"
        self.done.add(name)
        self.network.add_submodule(name, pool)
        node.target = name

    def _check_stride(self, result: Any) -> None:
        if not isinstance(result, fx.Node):
            raise ValueError(f"net must give one feature map, it gives {result}")
        for grid in self.grids[result]:
            if grid.stride != self.to:
                stride = grid.spread * grid.stride
                raise ValueError(f"to must divide the network's stride of {stride}, got {self.to!r}")


def _spread_pool(node: fx.Node, pool: _Pool, kept: _Two, grid: _Grids) -> nn.Module:
    """The pool over windows spread as the grid is."""
    kernel, stride, pad = _pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding)
    if isinstance(pool, nn.AvgPool2d):
        if pool.ceil_mode or (any(pad) and not pool.count_include_pad):
            raise _refusal(node, pool, "takes means over fewer values at the border")
        divisor = pool.divisor_override or kernel[0] * kernel[1]
        return SpreadAvgPool2d(kernel, kept, _times((1, 1), grid), _times(pad, grid), divisor)
    dilation = _pair(pool.dilation)
    # Where sizes are rounded up, windows reach over the end, but none begins behind it.
    over = [
        min(step - 1, away * (size - 1) - before) if pool.ceil_mode else 0
        for size, step, before, away in zip(kernel, stride, pad, dilation, strict=True)
    ]
    starts, ends = _times(pad, grid), _times((pad[0] + over[0], pad[1] + over[1]), grid)
    sides = (starts[1], ends[1], starts[0], ends[0])
    return SpreadMaxPool2d(kernel, kept, _times(dilation, grid), sides)


class SpreadMaxPool2d(nn.Module):
    """Maxima over dilated windows, with `sides` (left, right, top, bottom) of any width around the map."""

    def __init__(self, kernel: _Two, stride: _Two, dilation: _Two, sides: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation, self.sides = kernel, stride, dilation, sides

    def forward(self, x: Tensor) -> Tensor:
        """N,C,H,W -> N,C,H',W'."""
        padded = T.pad(x, self.sides, value=-math.inf) if any(self.sides) else x
        return T.max_pool2d(padded, self.kernel, self.stride, dilation=self.dilation)

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        return f"{self.kernel}, stride={self.stride}, dilation={self.dilation}, sides={self.sides}"


class SpreadAvgPool2d(nn.Module):
    """Sums over dilated windows, with zeros around the map, divided by `divisor`."""

    def __init__(self, kernel: _Two, stride: _Two, dilation: _Two, pad: _Two, divisor: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.pad, self.divisor = pad, divisor

    def forward(self, x: Tensor) -> Tensor:
        """N,C,H,W -> N,C,H',W'."""
        taps = torch.full((1, 1, *self.kernel), 1 / self.divisor, dtype=x.dtype, device=x.device)
        maps = x.flatten(0, 1).unsqueeze(1)
        out = T.conv2d(maps, taps, None, self.stride, self.pad, self.dilation)
        return out.reshape(*x.shape[:2], *out.shape[2:])

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        return (
            f"{self.kernel}, stride={self.stride}, dilation={self.dilation}, pad={self.pad}, 1/{self.divisor}"
        )


def _pair(value: Any) -> _Two:
    rows, columns = value if isinstance(value, tuple | list) else (value, value)
    return rows, columns


def _times(value: Any, grid: _Grids) -> _Two:
    rows, columns = _pair(value)
    return rows * grid[0].spread, columns * grid[1].spread


def _along_channels(node: fx.Node) -> bool:
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return dim == 1


def _refusal(node: fx.Node, call: Any, reason: str) -> ValueError:
    return ValueError(f"net cannot be rarefied: {described(node, call)} {reason}")
