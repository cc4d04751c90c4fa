"""Label maps as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnkern.data.palette import VOID_COLOUR

_MARGIN = 8
_INK, _PAPER = (30, 30, 34), (255, 255, 255)


def _table(palette: np.ndarray) -> np.ndarray:
    """256 colours: the palette's, then `VOID_COLOUR`."""
    palette = np.asarray(palette)
    if palette.ndim != 2 or palette.shape[1] != 3 or not 1 <= len(palette) <= 256:
        raise ValueError(f"palette has shape {palette.shape}, wanted (classes, 3) with 1 to 256 classes")
    table = np.empty((256, 3), np.uint8)
    table[:] = VOID_COLOUR
    table[: len(palette)] = palette
    return table


def _checked(label: np.ndarray) -> np.ndarray:
    if label.dtype != np.uint8 or label.ndim != 2:
        raise ValueError(f"label is {label.dtype} of shape {label.shape}, wanted uint8 (height, width)")
    return label


def shown(image: np.ndarray) -> np.ndarray:
    """An image of any input as uint8 (H, W, 3): colours where it has some, else grey from near to far."""
    if image.dtype == np.uint8:
        return image[:, :, :3]
    if image.shape[2] > 1:
        return image[:, :, :3].astype(np.uint8)
    least, most = float(image.min()), float(image.max())
    grey = (image - least) * (255 / max(most - least, 1e-6))
    return np.repeat(grey.astype(np.uint8), 3, 2)


def colourise(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): each class in its colour, what has none in `VOID_COLOUR`."""
    return _table(palette)[_checked(label)]


def overlay(image: np.ndarray, label: np.ndarray, palette: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """The classes' colours over the image, uint8 (H, W, 3); pixels without a class show the image alone.

    Raises: ValueError if the sizes differ or alpha is outside 0..1.
    """
    if image.shape != (*label.shape, 3):
        raise ValueError(f"image has shape {image.shape}, label {label.shape}, wanted the same size")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, wanted 0 to 1")
    share = np.where(label < len(palette), np.float32(alpha), np.float32(0))[:, :, None]
    return np.rint(image * (1 - share) + colourise(label, palette) * share).astype(np.uint8)


def indexed(label: np.ndarray, palette: np.ndarray) -> Image.Image:
    """The label as a palette image (mode P): saved as PNG it is a label file that shows colours."""
    picture = Image.fromarray(_checked(label)).convert("L")
    picture.putpalette(_table(palette).tobytes())
    return picture


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    palette: np.ndarray,
    classes: Sequence[str] | None = None,
    cell_width: int = 320,
) -> Image.Image:
    """Rows of pictures under captions, with a legend of the classes below.

    A cell is an image, uint8 (H, W, 3), or a label map, uint8 (H, W), which is colourised; it is scaled to
    `cell_width` pixels. ``sheet([(image, truth)], ["image", "truth"], palette, classes)``.

    Raises: ValueError if there is no row, or one has not as many cells as there are captions.
    """
    if not rows:
        raise ValueError("rows is empty, wanted at least one row of pictures")
    for row in rows:
        if len(row) != len(captions):
            raise ValueError(f"a row has {len(row)} pictures, wanted {len(captions)}, one a caption")
    font = ImageFont.load_default(max(12, cell_width // 18))
    line = round(font.getbbox("Ag")[3]) + _MARGIN
    cells = [[_cell(picture, palette, cell_width) for picture in row] for row in rows]
    heights = [max(cell.height for cell in row) for row in cells]
    width = len(captions) * (cell_width + _MARGIN) + _MARGIN
    entries = _legend(classes or [], font, width, line)
    legend_height = entries[-1][1] + line + _MARGIN if entries else 0
    below = line + _MARGIN + sum(h + _MARGIN for h in heights)
    page = Image.new("RGB", (width, below + legend_height), _PAPER)
    draw = ImageDraw.Draw(page)
    for i, caption in enumerate(captions):
        draw.text((_MARGIN + i * (cell_width + _MARGIN), _MARGIN), caption, _INK, font)
    y = line + _MARGIN
    for line_of_cells, height in zip(cells, heights, strict=True):
        for i, cell in enumerate(line_of_cells):
            page.paste(cell, (_MARGIN + i * (cell_width + _MARGIN), y))
        y += height + _MARGIN
    for (x, dy, name), colour in zip(entries, np.asarray(palette).tolist(), strict=False):
        box = (x, y + dy + 2, x + line - 2 * _MARGIN + 6, y + dy + line - _MARGIN)
        draw.rectangle(box, tuple(colour), _INK)
        draw.text((box[2] + 6, y + dy), name, _INK, font)
    return page


def _cell(picture: np.ndarray, palette: np.ndarray, width: int) -> Image.Image:
    """Labels and enlarged images by nearest neighbour, to keep pixels visible; reduced images smoothly."""
    is_label = picture.ndim == 2
    image = Image.fromarray(colourise(picture, palette) if is_label else picture)
    smooth = not is_label and image.width > width
    size = width, max(1, round(image.height * width / image.width))
    return image.resize(size, Image.Resampling.BOX if smooth else Image.Resampling.NEAREST)


def _legend(
    classes: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, line: int
) -> list[tuple[int, int, str]]:
    """(x, y, name) of each entry, wrapped to the page's width."""
    entries: list[tuple[int, int, str]] = []
    x = y = 0
    for name in classes:
        advance = round(font.getlength(name)) + line + 2 * _MARGIN
        if x and _MARGIN + x + advance > width:
            x, y = 0, y + line
        entries.append((_MARGIN + x, y, name))
        x += advance
    return entries
