"""Label maps of images larger than memory, window by window, with the labels that the whole image would give."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.models.alignment import Alignment
from fcnkern.resample import Pair, as_pair


class Window(NamedTuple):
    """Along one axis: pixels `start` to `end` of the image are seen, of which `first` to `last` are labelled."""

    start: int
    end: int
    first: int
    last: int


def windows(size: int, tile: int, margin: int, stride: int) -> list[Window]:
    """Windows of at most `tile` pixels that label every one of `size` pixels once.

    They start at multiples of `stride`, so that their feature maps are crops of the image's, and pixels less than
    `margin` from a side are labelled only where that side is the image's own.

    Raises:
        ValueError: a tile of less than 2 · margin + stride pixels, for a larger image.
    """
    if size <= tile:
        return [Window(0, size, 0, size)]
    step = (tile - 2 * margin) // stride * stride
    if step < 1:
        raise ValueError(
            f"tile must be at least {2 * margin + stride} pixels a side (twice the {margin} pixels around a pixel "
            f"that its label depends on, and the stride {stride}) for an image of {size}, got {tile}"
        )
    found, first, start = [], 0, 0
    while start + tile < size:
        last = start + tile - margin
        found.append(Window(start, start + tile, first, last))
        first, start = last, start + step
    return [*found, Window(start, size, first, size)]


def tiled(
    labels: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: int | Pair,
    alignment: Alignment,
    device: torch.device,
    out_dtype: torch.dtype,
) -> Tensor:
    """Label map of images N,3,H,W from windows of at most `tile` pixels: (height, width), or a side of both.

    Args:
        labels: images N,3,h,w on `device` -> label map N,h,w.
        x: on any device; one window at a time is copied to `device`.

    Returns:
        N,H,W of type `out_dtype`, on x's device.

    Raises:
        ValueError: the tile is too small, or the network's margin is unknown.
    """
    margin = alignment.margin
    if margin is None:
        raise ValueError(
            "tile: a tap lies behind an upsampling layer, so that its receptive field is not known"
        )
    rows, columns = (
        windows(size, side, margin, alignment.stride)
        for size, side in zip(x.shape[2:], as_pair("tile", tile, 1), strict=True)
    )
    result = torch.empty(x.shape[0], *x.shape[2:], dtype=out_dtype, device=x.device)
    for row, column in product(rows, columns):
        seen = x[:, :, row.start : row.end, column.start : column.end].to(device)
        kept = labels(seen)[
            :,
            row.first - row.start : row.last - row.start,
            column.first - column.start : column.last - column.start,
        ]
        result[:, row.first : row.last, column.first : column.last] = kept
    return result
