"""The things that stand in a street, each painted onto a `Canvas`."""

from __future__ import annotations

import numpy as np

from fcnkern.data.canvas import Canvas, Colour, mix, shade
from fcnkern.data.palette import CAMVID_CLASSES

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(
    len(CAMVID_CLASSES)
)

WALLS: list[Colour] = [
    (150, 84, 66), (172, 120, 92), (196, 178, 148), (168, 164, 158), (112, 110, 112), (206, 200, 190),
    (128, 142, 158), (146, 150, 122), (178, 142, 98), (94, 76, 70),
]  # fmt: skip
LEAVES: list[Colour] = [
    (62, 92, 42),
    (84, 110, 52),
    (44, 74, 44),
    (112, 116, 56),
    (146, 108, 48),
    (128, 76, 48),
]
PAINT: list[Colour] = [
    (150, 22, 26), (34, 52, 110), (206, 206, 208), (128, 132, 136), (40, 42, 46), (78, 104, 92),
    (190, 160, 60), (92, 130, 170),
]  # fmt: skip
CLOTHES: list[Colour] = [
    (40, 44, 60), (150, 40, 44), (70, 96, 150), (196, 190, 180), (90, 74, 58), (56, 110, 84),
    (208, 160, 60), (110, 60, 112),
]  # fmt: skip
SKIN: list[Colour] = [(224, 178, 150), (196, 142, 112), (140, 96, 72), (92, 62, 48)]
HAIR: list[Colour] = [(40, 30, 24), (90, 64, 40), (120, 116, 112)]
SIGNS: list[Colour] = [(196, 30, 34), (30, 76, 170), (228, 190, 40), (232, 232, 228), (26, 118, 74)]
LAMPS: list[Colour] = [(60, 200, 120), (220, 170, 50), (220, 50, 40)]
RAILS: list[Colour] = [(60, 66, 62), (150, 150, 146), (116, 84, 60), (196, 192, 184)]
GLASS: Colour = (62, 74, 88)


def pick(rng: np.random.Generator, colours: list[Colour], spread: float = 0.12) -> Colour:
    """One of the colours, a little brighter or darker."""
    return shade(colours[int(rng.integers(len(colours)))], 1 + float(rng.uniform(-spread, spread)))


def building(
    canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float, height: float, light: float
) -> None:
    """A house whose front lies along the street at `x`, from z0 to z1; its gable faces the camera."""
    wall = pick(rng, WALLS)
    away = x + np.sign(x) * 12
    canvas.front(x, away, 0, height, z0, shade(wall, 1.25 - 0.5 * light), BUILDING)
    canvas.side(x, 0, height, z0, z1, shade(wall, 0.65 + 0.5 * light), BUILDING)
    canvas.side(x, height - 0.5, height, z0, z1, shade(wall, 0.45))
    base = 0.0
    if rng.random() < 0.5:
        canvas.side(x, 0, 3.2, z0, z1, shade(pick(rng, WALLS + PAINT), 0.8))
        canvas.side(x, 0.6, 2.6, z0 + 0.6, z1 - 0.6, shade(GLASS, float(rng.uniform(0.6, 1.5))))
        base = 3.2
    _windows(canvas, rng, x, (z0, z1), (base, height - 0.8), light)


def _windows(
    canvas: Canvas,
    rng: np.random.Generator,
    x: float,
    along: tuple[float, float],
    up: tuple[float, float],
    light: float,
) -> None:
    z0, z1 = along
    storey, bay = float(rng.uniform(2.7, 3.4)), float(rng.uniform(2.0, 3.4))
    rows, columns = int((up[1] - up[0]) / storey), max(int((z1 - z0) / bay), 1)
    bay = (z1 - z0) / columns
    glass = mix(GLASS, canvas.haze, float(rng.uniform(0, 0.5)))
    lit = rng.random((rows, columns))
    if canvas.pixels(bay * abs(x), z1) / z1 < 1.0:
        return
    for row in range(rows):
        y = up[0] + row * storey + 0.9
        for column in range(columns):
            z = z0 + (column + 0.28) * bay
            pane = shade(glass, 0.7 + 0.7 * float(lit[row, column]) * light)
            canvas.side(x, y, y + 0.55 * storey, z, z + 0.5 * bay, pane)


def end_of_street(canvas: Canvas, rng: np.random.Generator, z: float) -> None:
    """Houses across the far end, or none and open sky."""
    x = -40.0
    while x < 40:
        width = float(rng.uniform(6, 16))
        if rng.random() < 0.75:
            height = float(rng.uniform(5, 16))
            wall = pick(rng, WALLS)
            canvas.front(x, x + width, 0, height, z, wall, BUILDING)
            for y in np.arange(1.5, height - 2, 3):
                canvas.front(x + 1, x + width - 1, y, y + 1.2, z, shade(wall, 0.7))
        else:
            leaf = pick(rng, LEAVES)
            canvas.front(x, x + width, 0, 2.5, z, shade(leaf, 0.8), TREE)
            for _ in range(5):
                _leaves(canvas, rng, x + width * float(rng.random()), float(rng.uniform(2, 6)), z, 2.5, leaf)
        x += width


def _leaves(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, z: float, radius: float, leaf: Colour
) -> None:
    canvas.disc((x, y, z), radius, radius * 0.85, shade(leaf, float(rng.uniform(0.65, 1.35))), TREE)


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A trunk and a crown of overlapping tufts, darker below."""
    leaf, top, spread = pick(rng, LEAVES), float(rng.uniform(4.5, 7.5)), float(rng.uniform(1.2, 2.2))
    foot_shadow(canvas, x, z, spread, 0.35)
    canvas.front(x - 0.16, x + 0.16, 0, top, z, (74, 60, 48), TREE)
    for dx, dy, r, k in rng.uniform((-1, -1, 0.4, 0.75), (1, 1, 0.75, 1.25), (14, 4)):
        colour = shade(leaf, k * (0.95 + 0.3 * dy))
        canvas.disc((x + dx * spread * 0.7, top + dy * spread * 0.8, z), r * spread, r * spread, colour, TREE)


def hedge(canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """A garden between two houses: a hedge along the street with trees behind it."""
    leaf = pick(rng, LEAVES)
    for z in np.linspace(z1, z0, 4):
        centre = x + np.sign(x) * float(rng.uniform(1, 4))
        for _ in range(5):
            y = float(rng.uniform(1.5, 6))
            _leaves(
                canvas, rng, centre + float(rng.uniform(-2, 2)), y, float(z), float(rng.uniform(1, 2)), leaf
            )
    height = float(rng.uniform(1.0, 2.4))
    canvas.front(x, x + np.sign(x) * 8, 0, height, z0, shade(leaf, 0.75), TREE)
    canvas.side(x, 0, height, z0, z1, shade(leaf, 0.9), TREE)


def fence(canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float) -> None:
    """A railing along the street: rails, posts and bars before a dim background."""
    colour, height = pick(rng, RAILS), float(rng.uniform(1.1, 1.7))
    canvas.side(x, 0, height, z0, z1, shade(colour, 0.6), FENCE)
    for y in (0.1, height - 0.18):
        canvas.side(x, y, y + 0.16, z0, z1, colour)
    step = float(rng.uniform(0.35, 0.7))
    for z in np.arange(z0, z1 - 0.2, max(step, (z1 - z0) / 24)):
        canvas.side(x, 0, height, float(z), float(z) + 0.5 * step, colour)


def pole(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A street lamp whose arm reaches over the road."""
    colour, height = pick(rng, [(96, 98, 96), (62, 64, 62), (146, 148, 142)]), float(rng.uniform(5.5, 8.5))
    half = float(rng.uniform(0.15, 0.25))
    canvas.front(x - half, x + half, 0, height, z, colour, POLE)
    canvas.front(x + 0.3 * half, x + half, 0, height, z, shade(colour, 0.7))
    reach = -np.sign(x) * float(rng.uniform(0.8, 1.8))
    canvas.front(x, x + reach, height - 0.25, height, z, colour, POLE)
    canvas.front(x + 0.6 * reach, x + 1.2 * reach, height - 0.4, height - 0.05, z, shade(colour, 1.4), POLE)


def sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign (round, triangular or square) or traffic lights on a post."""
    top, r, kind = float(rng.uniform(2.3, 3.0)), float(rng.uniform(0.45, 0.65)), int(rng.integers(4))
    canvas.front(x - 0.1, x + 0.1, 0, top, z, (128, 130, 128), POLE)
    colour, inner = pick(rng, SIGNS), pick(rng, [*SIGNS, (240, 240, 238), (240, 240, 238)])
    if kind == 0:
        _lights(canvas, x, top, z, lit=int(rng.integers(3)))
        return
    for size, c in ((r, colour), (0.62 * r, inner)):
        if kind == 1:
            canvas.disc((x, top, z), size, size, c, SIGN)
        elif kind == 2:
            canvas.front(x - size, x + size, top - size, top + size, z, c, SIGN)
        else:
            foot, half = top - 0.7 * size, 1.15 * size
            canvas.flat(z, [(x - half, foot), (x + half, foot), (x, top + 1.1 * size)], c, SIGN)


def _lights(canvas: Canvas, x: float, y: float, z: float, lit: int) -> None:
    canvas.front(x - 0.3, x + 0.3, y - 0.65, y + 0.65, z, (36, 40, 38), SIGN)
    for i, lamp in enumerate(LAMPS):
        canvas.disc((x, y - 0.4 + 0.4 * i, z), 0.16, 0.16, lamp if i == lit else shade(lamp, 0.3))


def foot_shadow(canvas: Canvas, x: float, z: float, half: float, strength: float = 0.5) -> None:
    """The dark patch under something that stands on the ground."""
    dz = min(half, 0.4 * z)
    near = max(z - dz, canvas.near)
    canvas.shadow([(x - half, 0, z), (x, 0, near), (x + half, 0, z), (x, 0, z + dz)], strength)


def car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, facing: bool) -> None:
    """A box with a cabin, from the rear or (facing) from the front; z is the end nearer to the camera."""
    paint, half, length = pick(rng, PAINT), float(rng.uniform(0.82, 0.98)), float(rng.uniform(3.4, 4.6))
    belt, roof = float(rng.uniform(0.85, 1.05)), float(rng.uniform(1.4, 1.95))
    far, outer = z + length, half + 0.2
    canvas.shadow(
        [(x - outer, 0, z - 0.2), (x + outer, 0, z - 0.2), (x + outer, 0, far), (x - outer, 0, far)], 0.6
    )
    back = z + (0.3 if facing else 0.15) * length
    _flank(canvas, x, -np.sign(x) * half, (z, back, far), (belt, roof), paint)
    for top, bottom, y0, y1, colour in (
        (0.8, 1.0, belt, roof, shade(paint, 0.95)),
        (0.68, 0.84, belt + 0.06, roof - 0.1, mix(GLASS, canvas.haze, 0.2)),
    ):
        wide, narrow = bottom * half, top * half
        pane = [(x - narrow, y1, back), (x + narrow, y1, back), (x + wide, y0, z), (x - wide, y0, z)]
        canvas.polygon(pane, colour, CAR)
    canvas.front(x - half, x + half, 0.14, 0.3, z, (16, 16, 18), CAR)
    canvas.front(x - half, x + half, 0.28, belt, z, paint, CAR)
    canvas.front(x - half, x + half, 0.28, 0.45, z, shade(paint, 0.55))
    canvas.front(x - 0.25, x + 0.25, 0.45, 0.6, z, (226, 224, 200))
    lamp: Colour = (238, 232, 200) if facing else (190, 30, 28)
    for s in (-1, 1):
        canvas.front(x + s * half * 0.95, x + s * half * 0.6, 0, 0.28, z, (22, 22, 24), CAR)
        canvas.front(x + s * half * 0.95, x + s * half * 0.66, 0.62, 0.8, z, lamp)


def _flank(
    canvas: Canvas,
    x: float,
    half: float,
    along: tuple[float, float, float],
    up: tuple[float, float],
    paint: Colour,
) -> None:
    """The side that one sees from the middle of the road, `half` (signed) from the car's axis at x."""
    (z, back, far), (belt, roof) = along, up
    length, outer, upper = far - z, x + half, x + 0.8 * half
    canvas.side(outer, 0.2, belt, z, far, shade(paint, 0.75), CAR)
    end = far - 0.2 * length
    for inset, colour in ((0.0, shade(paint, 0.7)), (0.12, GLASS)):
        a, b = inset * length, 1.5 * inset * (roof - belt)
        low = [(outer, belt + 0.3 * b, z + a), (outer, belt + 0.3 * b, far - a)]
        canvas.polygon(
            [*low, (upper, roof - b, end - 0.5 * a), (upper, roof - b, back + 0.5 * a)], colour, CAR
        )
    for wheel in (0.18, 0.8):
        centre = z + wheel * length
        canvas.side(outer, 0, 0.62, centre - 0.3, centre + 0.3, (22, 22, 24), CAR)


def _person(
    canvas: Canvas, rng: np.random.Generator, x: float, hips: float, z: float, tall: float, label: int
) -> None:
    """Torso, arms and head: the upper body, `tall` metres above the hips."""
    shirt, w, shoulders = pick(rng, CLOTHES), 0.27, hips + 0.62 * tall
    torso = [(x - 0.8 * w, hips), (x + 0.8 * w, hips), (x + w, shoulders), (x - w, shoulders)]
    canvas.flat(z, torso, shirt, label)
    for s in (-1, 1):
        inner, outer = x + s * (w - 0.04), x + s * (w + 0.09)
        arm = [(inner, shoulders), (outer, shoulders - 0.1), (outer, hips), (inner, hips)]
        canvas.flat(z, arm, shade(shirt, 0.8), label)
    canvas.disc((x, hips + 0.8 * tall, z), 0.17, 0.2 * tall, pick(rng, SKIN), label)
    canvas.disc((x, hips + 0.89 * tall, z), 0.17, 0.1 * tall, pick(rng, HAIR))


def pedestrian(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Somebody walking."""
    trousers, size = pick(rng, CLOTHES), float(rng.uniform(0.85, 1.05))
    stride, hip = float(rng.uniform(0.02, 0.25)), 0.9 * size
    foot_shadow(canvas, x, z, 0.45)
    for s in (-1, 1):
        foot = x + s * stride
        leg = [(x - 0.19, hip), (x + 0.19, hip), (foot + 0.13, 0), (foot - 0.13, 0)]
        canvas.flat(z, leg, shade(trousers, 0.85 + 0.15 * s), PEDESTRIAN)
    _person(canvas, rng, x, 0.85 * size, z, 0.9 * size, PEDESTRIAN)


def bicyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Somebody on a bicycle, seen from the side or from behind."""
    frame, reach = pick(rng, PAINT), float(rng.choice([0.12, 0.52]))
    foot_shadow(canvas, x, z, 0.6)
    for s in (-1, 1):
        wheel = x + s * reach, 0.36, z
        canvas.disc(wheel, min(0.36, reach + 0.1), 0.36, (26, 26, 28), BICYCLIST)
        canvas.disc(wheel, min(0.22, 0.4 * reach), 0.22, (150, 150, 150))
    bars = [(x - reach, 0.3), (x + reach, 0.3), (x + 0.7 * reach, 0.9), (x - 0.4 * reach, 0.9)]
    canvas.flat(z, bars, frame, BICYCLIST)
    canvas.front(x - 0.18, x + 0.18, 0.3, 1.0, z, pick(rng, CLOTHES), BICYCLIST)
    _person(canvas, rng, x, 0.95, z, 0.8, BICYCLIST)
