"""Procedural street scenes: an embedded data set that needs no files, with CamVid's classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import SupportsIndex

import numpy as np
from PIL import Image

from fcnkern.data import street
from fcnkern.data.canvas import Camera, Canvas, Colour, mix, shade
from fcnkern.data.palette import CAMVID_CLASSES, CAMVID_PALETTE
from fcnkern.data.sample import IGNORE, Sample, checked_index
from fcnkern.data.street import pick

SPLITS = ("train", "val", "test")

SKIES: list[tuple[Colour, Colour]] = [
    ((70, 120, 196), (186, 208, 226)), ((150, 158, 168), (206, 208, 208)), ((206, 212, 216), (232, 232, 228)),
    ((96, 112, 150), (230, 186, 146)), ((40, 84, 160), (150, 186, 214)),
]  # fmt: skip
ASPHALT: list[Colour] = [(92, 92, 96), (116, 112, 108), (74, 76, 82), (132, 130, 130)]
SLABS: list[Colour] = [(158, 150, 142), (136, 134, 134), (172, 160, 140), (150, 126, 112)]

TEXTURE = np.full(256, 6, np.float32)
TEXTURE[: len(CAMVID_CLASSES)] = [2, 8, 4, 7, 9, 20, 4, 9, 5, 6, 6]
"""Amplitude of the fine texture of each class, in grey levels."""


@dataclass(frozen=True)
class Street:
    """The ground plan, in metres: kerbs and house fronts, left (negative) and right."""

    kerbs: tuple[float, float]
    fronts: tuple[float, float]
    end: float


def render(seed: int, index: int, split: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H, W, 3) and label uint8 (H, W): a pure function of its arguments."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    top, bottom = SKIES[int(rng.integers(len(SKIES)))]
    scale = float(np.sqrt(height * width))
    camera = Camera(
        horizon=height * float(rng.uniform(0.36, 0.5)),
        centre=width * float(rng.uniform(0.35, 0.65)),
        focal=scale * float(rng.uniform(0.85, 1.15)),
        eye=float(rng.uniform(1.4, 2.1)),
    )
    canvas = Canvas(height, width, camera, haze=bottom)
    _paint(canvas, rng, (top, bottom))
    image, label = canvas.finish()
    return _light(image, label, rng), label


def _paint(canvas: Canvas, rng: np.random.Generator, sky: tuple[Colour, Colour]) -> None:
    kerbs = -float(rng.uniform(2.6, 5.0)), float(rng.uniform(2.6, 5.0))
    plan = Street(
        kerbs,
        (kerbs[0] - float(rng.uniform(2.2, 5.5)), kerbs[1] + float(rng.uniform(2.2, 5.5))),
        end=float(rng.uniform(45, 80)),
    )
    canvas.gradient(*sky, street.SKY)
    _clouds(canvas, rng)
    _ground(canvas, rng, plan)
    street.end_of_street(canvas, rng, plan.end)
    sun = float(rng.random())
    _houses(canvas, rng, plan, sun)
    _shadows(canvas, rng, plan, sun)
    for things in (*_pavements(rng, plan, canvas.near), _traffic(rng, plan, canvas.near)):
        for _, paint in sorted(things, key=lambda thing: -thing[0]):
            paint(canvas)


def _clouds(canvas: Canvas, rng: np.random.Generator) -> None:
    density = Image.fromarray(np.uint8(255 * np.clip(rng.random((5, 6)) * 1.4 - 0.6, 0, 1)))
    mask = density.resize(canvas.image.size, Image.Resampling.BICUBIC)
    canvas.image.paste((236, 236, 238), (0, 0), mask)


def _ground(canvas: Canvas, rng: np.random.Generator, plan: Street) -> None:
    near, far, (left, right) = canvas.near, 400.0, plan.kerbs
    asphalt, slabs = pick(rng, ASPHALT), pick(rng, SLABS)
    canvas.ground(-200, 200, near, far, slabs, street.PAVEMENT)
    canvas.ground(left, right, near, far, asphalt, street.ROAD)
    for kerb in plan.kerbs:
        canvas.ground(kerb, kerb + 0.16 * np.sign(kerb), near, far, shade(slabs, 0.7))
    for z in np.geomspace(near, 30, 14):
        for a, b in ((plan.fronts[0], left), (right, plan.fronts[1])):
            canvas.ground(a, b, float(z), float(z) * 1.012, shade(slabs, 0.85))
    paint = mix((226, 226, 216), asphalt, float(rng.uniform(0, 0.5)))
    middle, period = 0.5 * (left + right), float(rng.uniform(4, 8))
    for z in np.arange(near + period * float(rng.random()), 60, period):
        canvas.ground(middle - 0.09, middle + 0.09, float(z), float(z) + 0.5 * period, paint)
    if rng.random() < 0.3:
        z = float(rng.uniform(6, 16))
        for x in np.arange(left + 0.3, right - 0.5, 1.0):
            canvas.ground(float(x), float(x) + 0.5, z, z + 2.5, paint)
    if rng.random() < 0.5:
        for kerb in plan.kerbs:
            canvas.ground(kerb - 0.5 * np.sign(kerb), kerb - 0.38 * np.sign(kerb), near, 80, paint)


def _houses(canvas: Canvas, rng: np.random.Generator, plan: Street, sun: float) -> None:
    for front in plan.fronts:
        light = sun if front < 0 else 1 - sun
        z = plan.end
        while z > 3:
            length = float(rng.uniform(6, 15))
            near = max(z - length, 0.6)
            if rng.random() < 0.8:
                street.building(canvas, rng, front, near, z, float(rng.uniform(4.5, 15)), light)
            else:
                street.hedge(canvas, rng, front, near, z)
            z = near


def _shadows(canvas: Canvas, rng: np.random.Generator, plan: Street, sun: float) -> None:
    """The houses on the dark side throw theirs over the pavement and part of the road."""
    front = plan.fronts[0] if sun < 0.5 else plan.fronts[1]
    edge = front - np.sign(front) * float(rng.uniform(0, 5)) * abs(2 * sun - 1)
    z = canvas.near
    strength = float(rng.uniform(0.15, 0.5))
    while z < 60:
        length = float(rng.uniform(5, 15))
        reach = edge - np.sign(front) * float(rng.uniform(-1, 1))
        canvas.shadow(
            [(front, 0, z), (reach, 0, z), (reach, 0, z + length), (front, 0, z + length)], strength
        )
        z += length


Thing = tuple[float, Callable[[Canvas], None]]


def _pavements(
    rng: np.random.Generator, plan: Street, near: float
) -> tuple[list[Thing], list[Thing], list[Thing]]:
    """Fences along the houses, what stands on the pavements, fences along the kerbs.

    Seen from the road nothing further out hides what is further in, so each list is painted over the one before.
    """
    outer: list[Thing] = []
    things: list[Thing] = []
    inner: list[Thing] = []
    for kerb, front in zip(plan.kerbs, plan.fronts, strict=True):
        out = float(np.sign(kerb))
        if rng.random() < 0.65:
            z0 = near + float(rng.uniform(0.5, 5))
            at_kerb = rng.random() < 0.4
            x, layer = (kerb + 0.25 * out, inner) if at_kerb else (front - 0.2 * out, outer)
            fence = partial(street.fence, rng=rng, x=x, z0=z0, z1=z0 + float(rng.uniform(6, 14)))
            layer.append((z0, fence))
        for z in _spots(rng, near + 2, 40, 9, 0.4):
            things.append((z, partial(street.tree, rng=rng, x=kerb + 0.9 * out, z=z)))
        for z in _spots(rng, near + 1.5, 22, 7, 0.5):
            things.append((z, partial(street.pole, rng=rng, x=kerb + 0.45 * out, z=z)))
        for z in _spots(rng, near + 3, 18, 5, 0.45):
            things.append((z, partial(street.sign, rng=rng, x=kerb + 0.5 * out, z=z)))
        for z in _spots(rng, near + 2, 17, 2.5, 0.5):
            x = kerb + out * float(rng.uniform(0.5, abs(front - kerb) - 0.4))
            things.append((z, partial(street.pedestrian, rng=rng, x=x, z=z)))
    return outer, things, inner


def _traffic(rng: np.random.Generator, plan: Street, near: float) -> list[Thing]:
    """What moves or parks on the road: keep right, as CamVid's Cambridge does not."""
    things: list[Thing] = []
    for kerb in plan.kerbs:
        side = float(np.sign(kerb))
        parked = kerb - 1.15 * side
        for z in _spots(rng, near + 2, 40, 7, 0.45):
            things.append((z, partial(street.car, rng=rng, x=parked, z=z, facing=side < 0)))
        if abs(kerb) > 4:
            for z in _spots(rng, near + 5, 40, 16, 0.4):
                things.append((z, partial(street.car, rng=rng, x=side * 1.3, z=z, facing=side < 0)))
        for z in _spots(rng, near + 1.5, 16, 5, 0.25):
            x = kerb - side * float(rng.uniform(0.6, 2.4))
            things.append((z, partial(street.bicyclist, rng=rng, x=x, z=z)))
    if rng.random() < 0.4:
        z = near + float(rng.uniform(3, 9))
        x = float(rng.uniform(*plan.kerbs))
        things.append((z, partial(street.pedestrian, rng=rng, x=x, z=z)))
    return things


def _spots(rng: np.random.Generator, start: float, end: float, step: float, chance: float) -> list[float]:
    """Distances from `start` to `end`, about `step` apart, each taken with that chance."""
    grid = np.arange(start, end, step)
    grid = grid + rng.uniform(0, 0.5 * step, grid.size)
    return [float(z) for z, r in zip(grid, rng.random(grid.size), strict=True) if r < chance]


def _light(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Texture by class, uneven light, tint and exposure, sensor noise; then uint8."""
    height, width = label.shape
    fine = rng.standard_normal((height, width), np.float32)
    coarse = _smooth(rng, height, width, max(2, width // 6))
    image = image + ((fine + coarse) * TEXTURE[label])[:, :, None]
    light = 1 + 0.12 * _smooth(rng, height, width, 4)
    tint = rng.uniform(0.9, 1.1, 3).astype(np.float32) * np.float32(rng.uniform(0.7, 1.15))
    image = image * light[:, :, None] * tint
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1.5, 6))
    return np.clip(image, 0, 255).astype(np.uint8)


def _smooth(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    noise = Image.fromarray(rng.standard_normal((max(2, cells * height // width), cells)).astype(np.float32))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Scenes:
    """Street scenes drawn on demand: sample i of a split is a function of (seed, split, i) and size.

    Another size of the same proportions shows the same scene. Classes and colours are CamVid's; pixels that
    several classes share are `IGNORE`.

    count: samples in the split. size: (height, width). Raises: ValueError for a bad argument.
    """

    split: str = "train"
    count: int = 400
    size: tuple[int, int] = (96, 128)
    seed: int = 1
    name: str = "scenes"
    ignore_index: int = IGNORE

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"scenes have no split {self.split!r}, wanted one of {', '.join(SPLITS)}")
        if self.count < 1:
            raise ValueError(f"count is {self.count}, wanted at least 1")
        if min(self.size) < 16:
            raise ValueError(f"size is {self.size[0]}x{self.size[1]}, wanted at least 16x16 (height x width)")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, wanted a non-negative integer")

    @property
    def classes(self) -> list[str]:
        return list(CAMVID_CLASSES)

    @property
    def palette(self) -> np.ndarray:
        return CAMVID_PALETTE.copy()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: SupportsIndex) -> Sample:
        i = checked_index(index, self.count, self.name)
        image, label = render(self.seed, i, self.split, *self.size)
        return Sample(image, label, f"{self.split}_{i:06d}")
