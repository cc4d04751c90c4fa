"""Segmenting image files of any size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fcnkern._files import write_atomically
from fcnkern.data import indexed, overlay, preset, read_input, shown
from fcnkern.engine.device import device_of
from fcnkern.engine.evaluate import evaluating
from fcnkern.engine.network import Trained
from fcnkern.engine.progress import Progress
from fcnkern.models import MultiTask

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def predict_image(
    trained: Trained,
    image: np.ndarray,
    precision: str = "fp32",
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tile: tuple[int, int] | None = None,
) -> np.ndarray:
    """The classes of an image that the network's preset prepares: uint8 (H, W), of several tasks (T, H, W).

    ``scales``, ``flip`` and ``tile`` are those of ``FCN.predict``.
    """
    batch = preset(trained.model.preprocess)(image)[None].to(device_of(trained.model))
    options: dict[str, Any] = {"scales": scales, "flip": flip, "tile": tile}
    labels: np.ndarray
    with evaluating(trained.model, precision):
        if trained.tasks:
            maps = MultiTask(trained.model, trained.tasks).predict(batch, **options)
            labels = torch.cat(list(maps.values())).cpu().numpy()
        else:
            labels = trained.model.predict(batch, **options)[0].cpu().numpy()
    return labels


def save_png(picture: Image.Image, path: Path) -> None:
    """Writes a PNG atomically."""
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def find_images(inputs: Iterable[str | Path]) -> list[Path]:
    """The files named, and those with an image's suffix in the folders named, in order.

    Raises:
        FileNotFoundError: an input does not exist, or there is no image in a folder.
    """
    found: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            images = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not images:
                raise FileNotFoundError(f"folder {path} has no images ({', '.join(SUFFIXES)})")
            found += images
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"image {path} does not exist")
    return found


def plan_outputs(images: Sequence[Path], out: Path, tasks: Iterable[str] = ()) -> list[tuple[Path, Path]]:
    """For each image, and of several tasks for each of these, the paths of its label picture and of its overlay.

    Raises:
        ValueError: two images would share an output, or an output is one of the images.
    """
    inputs = {image.resolve() for image in images}
    plan: list[tuple[Path, Path]] = []
    owner: dict[Path, Path] = {}
    suffixes = [f"_{task}" for task in tasks] or [""]
    for image, suffix in product(images, suffixes):
        pair = out / f"{image.stem}{suffix}.png", out / f"{image.stem}{suffix}_overlay.png"
        for target in pair:
            if target.resolve() in inputs:
                raise ValueError(f"writing {target} would overwrite an input: choose another output folder")
            if target in owner:
                raise ValueError(f"{owner[target]} and {image} would both be written to {target}")
            owner[target] = image
        plan.append(pair)
    return plan


def predict_files(
    trained: Trained,
    inputs: Iterable[str | Path],
    out: str | Path,
    *,
    precision: str = "fp32",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tile: tuple[int, int] | None = None,
    quiet: bool = False,
) -> list[tuple[Path, Path]]:
    """Writes NAME.png (class indices with the palette) and NAME_overlay.png for every image.

    Of several tasks NAME_TASK.png and NAME_TASK_overlay.png for each.

    Args:
        inputs: image files and folders of them.
        out: folder of the outputs, made if need be.
        scales, flip: average over resized and mirrored copies, as in ``FCN.predict``.
        tile: size of windows for images larger than memory, as in ``FCN.predict``.

    Returns:
        the paths written, of several tasks one image's behind the other's.

    Raises:
        ValueError: ``out`` is a folder of inputs, in which the pictures would be taken for images the next time.
        FileNotFoundError, ValueError: see ``find_images``, ``plan_outputs`` and ``read_input``.
    """
    inputs = list(inputs)
    if any(Path(each).is_dir() and Path(each).resolve() == Path(out).resolve() for each in inputs):
        raise ValueError(f"out must not be a folder of inputs, got {out}: choose another output folder")
    images = find_images(inputs)
    plan = plan_outputs(images, Path(out), trained.tasks)
    palettes = np.split(trained.palette, np.cumsum([*trained.tasks.values()])[:-1])
    with Progress("predict", len(images), enabled=not quiet) as bar:
        for place, path in enumerate(images):
            image = read_input(path, preset(trained.model.preprocess))
            labels = predict_image(trained, image, precision, scales=scales, flip=flip, tile=tile)
            maps = labels if trained.tasks else labels[None]
            targets = plan[place * len(maps) : (place + 1) * len(maps)]
            for each, palette, (label_path, overlay_path) in zip(maps, palettes, targets, strict=True):
                save_png(indexed(each, palette), label_path)
                save_png(Image.fromarray(overlay(shown(image), each, palette)), overlay_path)
            bar.advance()
    return plan
