"""Images and labels from files, with errors that name the file."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from fcnkern.data.labels import plain, some, to_classes
from fcnkern.data.sample import IGNORE, DataError, Sample, checked_index

IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")
LABEL_MODES = ("L", "P", "1", "I", "I;16", "I;16B")
HIGHEST = {"L;2": 3, "L;4": 15}
"""The highest number of images of 2 and 4 bits a pixel, which PIL stretches to fill 8, as it does with PPM's."""
LARGE, DENSEST = 100_000_000, 10_000
"""Pixels of an image that are worth a look at its file before memory is taken; most of them to a byte of a file (the
densest PNG has 8,256)."""
_BROKEN = (
    *(OSError, SyntaxError, EOFError, ValueError, OverflowError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
_LIMIT = threading.Lock()


def _open(path: Path) -> Image.Image:
    """The image, not yet decoded, however large: who names a file wants it read.

    PIL has one limit for the whole program: it comes back as soon as the header is read.
    """
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _load(path: Path, what: str) -> tuple[Image.Image, str, int]:
    """The image, and of its file what `_stored` tells."""
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} is missing")
    try:
        image = _open(path)
        _check_size(image, path)
        stored, highest = _stored(image)
        image.load()
    except _BROKEN as error:
        raise DataError(f"{what} {path} is truncated or not an image: {error}") from error
    return image, stored, highest


def _check_size(image: Image.Image, path: Path) -> None:
    pixels, size = image.width * image.height, path.stat().st_size
    if pixels > LARGE and pixels > DENSEST * size:
        raise ValueError(f"its header says {image.width}x{image.height} pixels, the file has {size} bytes")


def _stored(image: Image.Image) -> tuple[str, int]:
    """In PIL's words how the file stores its pixels, where PIL tells it ("RGB;16B"); the highest number, where PIL
    stretches the numbers up to it to fill 8 or 16 bits, else 0."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return "", 0
    codec, _, _, arguments = image.tile[0]
    first, *more = arguments if isinstance(arguments, tuple) and arguments else (arguments,)
    stored = first if isinstance(first, str) else ""
    if codec not in ("ppm", "ppm_plain") or not more:
        return stored, HIGHEST.get(stored[:3], 0)  # "L;2R" begins at the lowest bit
    return f"{stored};16B" if more[0] > 255 else stored, more[0]


def read_image(path: str | Path, *, upright: bool = False) -> np.ndarray:
    """The image as uint8 (H, W, 3) RGB; grey and palette images are converted.

    upright: turn it as its EXIF orientation says, where that can be read, as viewers do; else the pixels are as
    stored, as labels beside images mostly are.

    Raises: FileNotFoundError; DataError if it cannot be decoded or has more than 8 bits a channel.
    """
    image, stored, _ = _load(Path(path), "image")
    if image.mode not in IMAGE_MODES or ";16" in stored:
        raise DataError(
            f"image {path} has mode {image.mode if image.mode not in IMAGE_MODES else stored}, wanted 8 bits a "
            f"channel ({', '.join(IMAGE_MODES)})"
        )
    return np.array((_upright(image) if upright else image).convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:  # damaged EXIF: viewers show the pixels as stored
        return image


def is_turned(path: str | Path) -> bool:
    """Whether viewers show the image turned or mirrored, by its EXIF orientation; False where it cannot be read."""
    try:
        with _open(Path(path)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except _BROKEN:
        return False


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
    image, _, highest = _load(Path(path), what)
    if image.mode not in LABEL_MODES:
        raise DataError(
            f"{what} {path} has mode {image.mode}, wanted a single channel (L, 16 bit) or a palette (P)"
        )
    values = np.array(image)
    if not highest:
        return values
    full = 65535 if image.mode == "I" else 255
    return ((values.astype(np.int64) * highest + full // 2) // full).astype(values.dtype)


@dataclass(frozen=True)
class Pair:
    """Where one sample lies. beside: the file of the image's further channels, where these have one of their own."""

    name: str
    image: Path
    label: Path
    beside: Path | None = None

    def missing(self) -> list[str]:
        """What is not there, in words: "image PATH", "label PATH"."""
        images = (self.image,) if self.beside is None else (self.image, self.beside)
        parts = (*(("image", file) for file in images), ("label", self.label))
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
