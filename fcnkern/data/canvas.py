"""A pinhole camera that paints shapes given in metres onto an image and a label map at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fcnkern.data.sample import IGNORE

Colour = tuple[int, int, int]
Point = tuple[float, float, float]
"""x metres to the right of the camera, y metres above the ground, z metres ahead."""

OVERSAMPLING = 2


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor < 1) or brighter."""
    r, g, b = colour
    return min(255, int(r * factor)), min(255, int(g * factor)), min(255, int(b * factor))


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """(1 - t) a + t b."""
    s = 1 - t
    return int(s * a[0] + t * b[0]), int(s * a[1] + t * b[1]), int(s * a[2] + t * b[2])


@dataclass(frozen=True)
class Camera:
    """horizon, centre: the vanishing point, in pixels; focal: pixels; eye: metres above the ground."""

    horizon: float
    centre: float
    focal: float
    eye: float


class Canvas:
    """Paints from far to near, the later over the earlier, twice as fine as what `finish` returns."""

    def __init__(self, height: int, width: int, camera: Camera, haze: Colour) -> None:
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self.height, self.width, self.camera, self.haze = height, width, camera, haze
        self.image = Image.new("RGB", size)
        self.label = Image.new("L", size, IGNORE)
        self._paint = ImageDraw.Draw(self.image)
        self._blend = ImageDraw.Draw(self.image, "RGBA")
        self._mark = ImageDraw.Draw(self.label)
        self._focal = camera.focal * OVERSAMPLING
        self._cx = camera.centre * OVERSAMPLING
        self._cy = camera.horizon * OVERSAMPLING
        self.near = 0.9 * camera.focal * camera.eye / max(height - camera.horizon, 1.0)

    def pixels(self, metres: float, z: float) -> float:
        """How many pixels of the result a length facing the camera has at distance z."""
        return self.camera.focal * metres / z

    def _project(self, point: Point) -> tuple[float, float]:
        x, y, z = point
        k = self._focal / z
        return self._cx + k * x, self._cy + k * (self.camera.eye - y)

    def _hazed(self, colour: Colour, z: float) -> Colour:
        return mix(colour, self.haze, min(0.6, z / 150))

    def polygon(self, points: Sequence[Point], colour: Colour, label: int | None = None) -> None:
        """A filled polygon; with `label` None the class of what lies behind stays (windows, lane marks)."""
        corners = [self._project(p) for p in points]
        self._paint.polygon(corners, fill=self._hazed(colour, points[0][2]))
        if label is not None:
            self._mark.polygon(corners, fill=label)

    def flat(
        self, z: float, points: Sequence[tuple[float, float]], colour: Colour, label: int | None = None
    ) -> None:
        """A polygon facing the camera, from (x, y) corners."""
        self.polygon([(x, y, z) for x, y in points], colour, label)

    def front(
        self, x0: float, x1: float, y0: float, y1: float, z: float, colour: Colour, label: int | None = None
    ) -> None:
        """An upright rectangle facing the camera."""
        self.polygon([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], colour, label)

    def side(
        self, x: float, y0: float, y1: float, z0: float, z1: float, colour: Colour, label: int | None = None
    ) -> None:
        """An upright rectangle along the street."""
        self.polygon([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)], colour, label)

    def ground(
        self, x0: float, x1: float, z0: float, z1: float, colour: Colour, label: int | None = None
    ) -> None:
        """A rectangle lying on the ground."""
        self.polygon([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], colour, label)

    def disc(self, centre: Point, rx: float, ry: float, colour: Colour, label: int | None = None) -> None:
        """An upright ellipse facing the camera, radii in metres."""
        px, py = self._project(centre)
        k = self._focal / centre[2]
        bounds = (px - k * rx, py - k * ry, px + k * rx, py + k * ry)
        self._paint.ellipse(bounds, fill=self._hazed(colour, centre[2]))
        if label is not None:
            self._mark.ellipse(bounds, fill=label)

    def shadow(self, points: Sequence[Point], strength: float) -> None:
        """Darken what a polygon covers."""
        self._blend.polygon([self._project(p) for p in points], fill=(10, 10, 25, int(255 * strength)))

    def gradient(self, top: Colour, bottom: Colour, label: int) -> None:
        """Fill everything with a vertical gradient that ends at the horizon."""
        rows = self.image.height
        t = np.clip(np.arange(rows) / max(self._cy, 1.0), 0, 1)[:, None]
        column = np.uint8(np.array(top) * (1 - t) + np.array(bottom) * t)
        self.image.paste(Image.fromarray(column[:, None]).resize(self.image.size))
        self.label.paste(label, (0, 0, *self.label.size))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 (H, W, 3) in 0..255 and uint8 (H, W); pixels that several classes share are `IGNORE`."""
        image = np.asarray(self.image.reduce(OVERSAMPLING), np.float32)
        fine = np.asarray(self.label)
        label = fine[::2, ::2].copy()
        mixed = (fine[1::2, ::2] != label) | (fine[::2, 1::2] != label) | (fine[1::2, 1::2] != label)
        label[mixed] = IGNORE
        return image, label
