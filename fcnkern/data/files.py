"""Images and labels from files, with errors that name the file."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from PIL import Image

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
    image = _load(Path(path), "label")
    if image.mode not in LABEL_MODES:
        raise DataError(
            f"label {path} has mode {image.mode}, "
            "wanted class indices: a single channel (L, 16 bit) or a palette (P)"
        )
    values = np.array(image)
    if values.dtype.itemsize > 1 and (bad := values[(values < 0) | (values > 255)]).size:
        raise DataError(f"label {path} has values {_some(bad)}, wanted 0..255")
    return values.astype(np.uint8)


def check_label(label: np.ndarray, num_classes: int, path: str | Path) -> None:
    """Raises: DataError with the offending values if any is neither in 0..num_classes-1 nor `IGNORE`."""
    bad = label[(label >= num_classes) & (label != IGNORE)]
    if bad.size:
        raise DataError(
            f"label {path} has {bad.size} pixels with values {_some(bad)}, "
            f"wanted 0..{num_classes - 1} or {IGNORE} (ignore)"
        )


def _some(values: np.ndarray, limit: int = 8) -> str:
    found = np.unique(values)
    return ", ".join(str(v) for v in found[:limit]) + (", ..." if found.size > limit else "")


@dataclass(frozen=True)
class Pair:
    """Where one sample lies."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class FileDataset:
    """Image and label files, read when asked for. `void`: a stored value that means `IGNORE`, as 255 does."""

    name: str
    classes: list[str]
    palette: np.ndarray = field(repr=False, compare=False)
    pairs: list[Pair] = field(repr=False)
    void: int | None = None
    ignore_index: int = IGNORE

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Raises: IndexError; FileNotFoundError, DataError naming the file (`read_image`, `read_label`)."""
        pair = self.pairs[checked_index(index, len(self), self.name)]
        image, label = read_image(pair.image), read_label(pair.label)
        if label.shape != image.shape[:2]:
            raise DataError(
                f"label {pair.label} is {label.shape[1]}x{label.shape[0]}, "
                f"its image {pair.image} is {image.shape[1]}x{image.shape[0]} (width x height)"
            )
        if self.void is not None:
            label[label == self.void] = IGNORE
        check_label(label, len(self.classes), pair.label)
        return Sample(image, label, pair.name)
