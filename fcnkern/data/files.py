"""Images and labels from files, with errors that name the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from PIL import Image

from fcnkern.data.labels import plain, some, to_classes
from fcnkern.data.sample import IGNORE, DataError, Sample, checked_index

IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")
LABEL_MODES = ("L", "P", "1", "I", "I;16", "I;16B")
_BROKEN = (OSError, SyntaxError, EOFError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


def _load(path: Path, what: str) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} is missing")
    try:
        image = Image.open(path)
        image.load()
    except _BROKEN as error:
        raise DataError(f"{what} {path} is truncated or not an image: {error}") from error
    return image


def read_image(path: str | Path) -> np.ndarray:
    """The image as uint8 (H, W, 3) RGB, as stored (no EXIF rotation); grey and palette images are converted.

    Raises: FileNotFoundError; DataError if it cannot be decoded or has more than 8 bits a channel.
    """
    image = _load(Path(path), "image")
    if image.mode not in IMAGE_MODES:
        raise DataError(
            f"image {path} has mode {image.mode}, wanted 8 bits a channel ({', '.join(IMAGE_MODES)})"
        )
    return np.array(image.convert("RGB"))


def read_label(path: str | Path) -> np.ndarray:
    """The label map as uint8 (H, W): the stored values, or the palette's indices, never colours.

    Raises: FileNotFoundError; DataError if it cannot be decoded, has colours, or values above 255.
    """
    values = read_samples(path, "label")
    if values.dtype.itemsize > 1 and (bad := values[(values < 0) | (values > 255)]).size:
        raise DataError(f"label {path} has values {some(bad)}, wanted 0..255")
    return values.astype(np.uint8)


def read_samples(path: str | Path, what: str = "image") -> np.ndarray:
    """The stored numbers of an image of one channel, or a palette's indices, as integers (H, W).

    Raises: FileNotFoundError; DataError if it cannot be decoded or has several channels. `what` it is called there.
    """
    image = _load(Path(path), what)
    if image.mode not in LABEL_MODES:
        raise DataError(
            f"{what} {path} has mode {image.mode}, wanted a single channel (L, 16 bit) or a palette (P)"
        )
    return np.array(image)


@dataclass(frozen=True)
class Pair:
    """Where one sample lies."""

    name: str
    image: Path
    label: Path

    def missing(self) -> list[str]:
        """What is not there, in words: "image PATH", "label PATH"."""
        parts = (("image", self.image), ("label", self.label))
        return [f"{what} {file}" for what, file in parts if not file.is_file()]


@dataclass(frozen=True)
class FileDataset:
    """Image and label files, read when asked for.

    table: the classes of the stored label values (`fcnkern.data.labels`); by default they are class indices and
    `IGNORE`. load_image, load_label: read a file; functions of a module, so that the data set pickles.
    preset: what prepares the images, where these are no colour photographs.
    published: how many samples the publisher's release has in this split, where that is known.
    """

    name: str
    classes: list[str]
    palette: np.ndarray = field(repr=False, compare=False)
    pairs: list[Pair] = field(repr=False)
    table: np.ndarray | None = field(default=None, repr=False, compare=False)
    load_image: Callable[[Path], np.ndarray] = field(default=read_image, repr=False)
    load_label: Callable[[Path], np.ndarray] = field(default=read_label, repr=False)
    published: int | None = None
    preset: str | None = None
    ignore_index: int = IGNORE

    def __len__(self) -> int:
        return len(self.pairs)

    def missing(self) -> list[str]:
        """The listed files that are not there: "image PATH", "label PATH"."""
        return [file for pair in self.pairs for file in pair.missing()]

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Raises: IndexError; FileNotFoundError, DataError naming the file (`read_image`, `read_label`)."""
        pair = self.pairs[checked_index(index, len(self), self.name)]
        if missing := pair.missing():
            raise FileNotFoundError(", ".join(f"{file} is missing" for file in missing))
        image, stored = self.load_image(pair.image), self.load_label(pair.label)
        if stored.shape != image.shape[:2]:
            raise DataError(
                f"label {pair.label} is {stored.shape[1]}x{stored.shape[0]}, "
                f"its image {pair.image} is {image.shape[1]}x{image.shape[0]} (width x height)"
            )
        table = plain(len(self.classes)) if self.table is None else self.table
        return Sample(image, to_classes(stored, table, pair.label), pair.name)
