"""Label maps that are pictures: a colour stands for a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnkern.data.files import read_image
from fcnkern.data.lists import read_lines
from fcnkern.data.sample import DataError

Colours = tuple[tuple[int, int, int], ...]


def read_colour_names(path: Path) -> dict[str, tuple[int, int, int]]:
    """The colours of a file with a line "R G B name" each, in its order.

    Raises: FileNotFoundError; DataError naming a line that is none, or repeats a name or a colour.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for line in read_lines(path):
        *numbers, name = line.split(maxsplit=3)
        if len(numbers) != 3 or not all(n.isdecimal() and int(n) < 256 for n in numbers):
            raise DataError(f"{path} has the line {line!r}, wanted R G B in 0..255 and a name")
        colour = int(numbers[0]), int(numbers[1]), int(numbers[2])
        if name in found or colour in found.values():
            raise DataError(f"{path} has the line {line!r}, whose name or colour an earlier line has")
        found[name] = colour
    return found


def read_colours(path: Path, colours: Colours) -> np.ndarray:
    """A picture as numbers of its colours: uint8 (H, W).

    Raises: FileNotFoundError; DataError if it cannot be decoded or has a colour that is not among `colours`.
    """
    packed, known = _packed(read_image(path)), _packed(np.array(colours, np.uint8))
    order = np.argsort(known)
    place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
    label = order[place]
    bad = known[label] != packed
    if bad.any():
        first = np.unique(packed[bad])[:4].tolist()
        names = ", ".join(f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c in first)
        raise DataError(
            f"label {path} has {np.count_nonzero(bad)} pixels of colours without a class: {names}"
        )
    return label.astype(np.uint8)


def _packed(colours: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
