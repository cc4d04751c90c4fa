"""Segmenting image files of any size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fcnkern._files import write_atomically
from fcnkern.data import indexed, overlay, preset, read_input, shown
from fcnkern.engine.evaluate import evaluating
from fcnkern.engine.network import Trained
from fcnkern.engine.progress import Progress

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
    """The classes of an image that the network's preset prepares: uint8 (H, W).

    ``scales``, ``flip`` and ``tile`` are those of ``FCN.predict``.
    """
    batch = preset(trained.model.preprocess)(image)[None]
    with evaluating(trained.model, precision):
        labels: np.ndarray = trained.model.predict(batch, scales=scales, flip=flip, tile=tile)[0].numpy()
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


def plan_outputs(images: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """For each image the paths of its label picture and of its overlay.

    Raises:
        ValueError: two images would share an output, or an output is one of the images.
    """
    inputs = {image.resolve() for image in images}
    plan: list[tuple[Path, Path]] = []
    owner: dict[Path, Path] = {}
    for image in images:
        pair = out / f"{image.stem}.png", out / f"{image.stem}_overlay.png"
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

    Args:
        inputs: image files and folders of them.
        out: folder of the outputs, made if need be.
        scales, flip: average over resized and mirrored copies, as in ``FCN.predict``.
        tile: size of windows for images larger than memory, as in ``FCN.predict``.

    Returns:
        the paths written.

    Raises:
        FileNotFoundError, ValueError: see ``find_images``, ``plan_outputs`` and ``read_input``.
    """
    images = find_images(inputs)
    plan = plan_outputs(images, Path(out))
    with Progress("predict", len(images), enabled=not quiet) as bar:
        for path, (label_path, overlay_path) in zip(images, plan, strict=True):
            image = read_input(path, preset(trained.model.preprocess))
            labels = predict_image(trained, image, precision, scales=scales, flip=flip, tile=tile)
            save_png(indexed(labels, trained.palette), label_path)
            save_png(Image.fromarray(overlay(shown(image), labels, trained.palette)), overlay_path)
            bar.advance()
    return plan
