"""What a head of skip connections needs to know about its taps: kernels, crops, and which images it covers.

The authors wrote these numbers into their nets by hand (net.py: offsets 5, 9, 19, 27, 31); here they follow from the
traced body. Caffe's Crop layer has the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import count
from math import ceil
from typing import NamedTuple

from fcnkern.models.geometry import CoordinateMap, Layer
from fcnkern.models.tracing import Path, Traced

MAX_PAD = 2048


class Step(NamedTuple):
    """One upsampling: a transposed convolution without padding, and a crop.

    `kernel` is 2·factor, or 2·factor - 1 where values must come to lie on pixels, not between two of them. `offset`
    is the pixel of the skip (of the image, in the last step) on which the first upsampled value lies: where it is
    positive the skip is cropped at its start, where it is negative the upsampled scores are.
    """

    factor: int
    kernel: int
    offset: int

    @property
    def layer(self) -> Layer:
        """The transposed convolution."""
        return Layer(self.kernel, self.factor, up=True)


class Alignment(NamedTuple):
    """How the scores of a network's taps are upsampled and cropped to line up, on both axes alike.

    Attributes:
        steps: the upsampling before each skip is added, coarsest first.
        final: the last upsampling; its scores are cropped at `-final.offset`, which is `final_offset`.
        stride: image pixels per value of the coarsest tap.
        field: receptive field of the coarsest tap in pixels, or None behind an upsampling layer.
        min_size: images of at least that many pixels a side are covered; smaller ones must be padded.
        margin: a score at a pixel depends on no pixel farther away than this, along either axis; None where the
            field of a tap is not known. A value of the whole image, as global pooling gives it, does not count.
    """

    steps: tuple[Step, ...]
    final: Step
    stride: int
    field: int | None
    min_size: int
    margin: int | None

    @property
    def final_offset(self) -> int:
        """First row and column of the upsampled scores that belong to the image."""
        return -self.final.offset


def align(taps: Mapping[str, Traced], pad: int = 0) -> Alignment:
    """The alignment of feature maps of one body.

    Args:
        taps: the traced feature maps by name, finest first.
        pad: zeros put around the image before the body, on every side.

    Raises:
        ValueError: the strides do not grow by whole factors; rows and columns differ; the maps lie a fraction of a
            pixel apart that no kernel can bridge; or the scores leave part of some images uncovered, for which the
            message names the smallest pad that covers all.
    """
    rows, columns = _axes(taps, pad)
    steps, final = _plan(taps, rows)
    if _plan(taps, columns) != (steps, final):
        raise ValueError(
            f"rows and columns need different upsampling: {(*steps, final)} and {_plan(taps, columns)}"
        )
    sizes = [min_size(paths, steps, final) for paths in (rows, columns)]
    if final.offset > 0 or None in sizes:
        raise ValueError(_uncovered(taps, final, pad))
    least = max(size for size in sizes if size is not None)
    margins = [_margin(paths, steps, final) for paths in (rows, columns)]
    margin = None if None in margins else max(each for each in margins if each is not None)
    return Alignment(steps, final, rows[-1].stride, rows[-1].field, least, margin)


def _margin(paths: Sequence[Path], steps: Sequence[Step], final: Step) -> int | None:
    """`Alignment.margin` along one axis: how far the upsampling of each tap reaches, and half the tap's field."""
    reach, margin = Fraction(final.kernel - 1, 2), 0
    for path, step in zip(paths, (*reversed(steps), None), strict=True):
        if path.field is None:
            return None
        margin = max(margin, ceil(reach + Fraction(path.field - 1, 2)))
        if step is not None:
            reach += Fraction(step.kernel - 1, 2) * path.stride
    return margin


def _axes(taps: Mapping[str, Traced], pad: int) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The paths along rows and along columns, finest first, with `pad` zeros around the image."""
    first = Layer(1, pad=pad)

    def padded(path: Path) -> Path:
        return path._replace(layers=(first, *path.layers), map=first.map.then(path.map))

    rows, columns = ([getattr(tap, axis) for tap in taps.values()] for axis in ("rows", "columns"))
    return tuple(map(padded, rows)), tuple(map(padded, columns))


def _plan(names: Iterable[str], paths: Sequence[Path]) -> tuple[tuple[Step, ...], Step]:
    """The steps from the coarsest path to the finest, and from there to the image."""
    *skips, (name, coarsest) = zip(names, paths, strict=True)
    grid, steps = coarsest.map, []
    for skip, path in reversed(skips):
        step = _step(grid, path.map, f"tap {name!r}", f"tap {skip!r}")
        steps.append(step)
        # The sum begins where the later of the two begins.
        shift = path.map.shift - max(0, step.offset)
        grid, name = CoordinateMap(path.map.scale, shift), skip
    return tuple(steps), _step(grid, CoordinateMap(), f"tap {name!r}", "the image")


def _step(source: CoordinateMap, target: CoordinateMap, name: str, target_name: str) -> Step:
    """The upsampling from one grid to another, with the kernel whose parity makes the crop a whole number."""
    factor = target.scale / source.scale
    if factor.denominator != 1 or factor < 2:
        raise ValueError(
            f"{name} has stride {1 / source.scale} and {target_name} {1 / target.scale}: from each to the "
            "next finer one it must shrink by a whole factor of at least 2"
        )
    apart = target.shift - factor * source.shift
    for kernel in (2 * int(factor), 2 * int(factor) - 1):
        offset = apart - Fraction(kernel - 1, 2)
        if offset.denominator == 1:
            return Step(int(factor), kernel, int(offset))
    raise ValueError(
        f"{name} and {target_name} lie {apart % 1} pixels of {target_name} apart. Kernels of even and odd size "
        "bridge half pixels and whole ones, nothing bridges this: change a pad or a kernel of the body"
    )


@lru_cache(maxsize=512)
def min_size(paths: tuple[Path, ...], steps: tuple[Step, ...], final: Step) -> int | None:
    """The smallest size from which on every image is covered by upsampled scores along one axis, or None.

    One period of the stride decides: an image larger by the stride has one coarse value more, and every map grows
    alike.

    Args:
        paths: the taps, finest first.
    """
    stride = paths[-1].stride
    bound = (paths[-1].field or 0) + 4 * stride
    run = 0
    for size in count(1):
        run = run + 1 if covers(size, paths, steps, final) else 0
        if run == stride:
            return size - stride + 1
        if size - run > bound:
            return None
    raise AssertionError  # count() does not end


def covers(size: int, paths: Sequence[Path], steps: Iterable[Step], final: Step) -> bool:
    """Whether the scores reach every pixel of an image of `size` pixels along one axis."""
    *skips, side = (path.sizes(size) for path in paths)
    if 0 in (*skips, side):
        return False
    for step, skip in zip(steps, reversed(skips), strict=True):
        up = step.layer.output_size(side) + min(0, step.offset)
        side = min(up, skip - max(0, step.offset))
        if side < 1:
            return False
    return final.layer.output_size(side) + final.offset >= size


def smallest_pad(taps: Mapping[str, Traced]) -> int | None:
    """The least number of zeros around the image, on every side, with which an image of any size is covered.

    They come on top of what the body pads itself. None: there is no such pad up to 2048.
    """
    for pad in range(MAX_PAD):
        rows, columns = _axes(taps, pad)
        steps, final = _plan(taps, rows)
        if final.offset <= 0 and all(_covers_all(paths, steps, final) for paths in (rows, columns)):
            return pad
    return None


def _covers_all(paths: tuple[Path, ...], steps: tuple[Step, ...], final: Step) -> bool:
    return all(covers(size, paths, steps, final) for size in range(1, paths[-1].stride + 1))


def _uncovered(taps: Mapping[str, Traced], final: Step, pad: int) -> str:
    if final.offset > 0:
        what = f"the upsampled scores begin {final.offset} pixels inside the image"
    else:
        what = "the upsampled scores end before the image for some sizes"
    least = smallest_pad(taps)
    advice = "no pad helps" if least is None else f"with pad={least} every size is covered"
    return f"{what} (taps {', '.join(taps)}; pad {pad}): {advice}"
