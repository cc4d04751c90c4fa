"""``fcnkern sheet``: the paper's comparison of networks, a row an image: image, predictions, truth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fcnkern.data import Dataset, numbered, open_dataset, sheet, shown, tasks_of
from fcnkern.data.registry import forms
from fcnkern.engine.agreement import check_classes, check_images
from fcnkern.engine.command import add_device
from fcnkern.engine.device import choose_device
from fcnkern.engine.network import Trained, load_trained
from fcnkern.engine.predict import predict_image, save_png
from fcnkern.engine.progress import Progress

DEFAULT_OUT = Path("fcnkern-sheet.png")
LEGEND_CLASSES = 40
"""With more classes than these the legend would be larger than the pictures, and tells no colours apart."""


def add_sheet(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fcnkern sheet``."""
    parser.set_defaults(run=_sheet)
    parser.add_argument("--data", required=True, metavar="SPEC", help=forms())
    parser.add_argument("--split", default="val", metavar="NAME", help="split to show (default val)")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="written by fcnkern train, or runs' folders; a column each",
    )
    parser.add_argument(
        "--limit", type=int, default=6, metavar="N", help="images, spread over the split (default 6)"
    )
    parser.add_argument(
        "--cell", type=int, default=320, metavar="N", help="width of a picture in pixels (default 320)"
    )
    add_device(parser)
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FILE", help=f"PNG to write (default {DEFAULT_OUT})"
    )


def _sheet(options: argparse.Namespace) -> int:
    if options.out.suffix.lower() != ".png":
        raise ValueError(f"out must end in .png, got {options.out}")
    device, dataset = choose_device(options.device), open_dataset(options.data, options.split)
    networks = [load_trained(path) for path in options.checkpoints]
    for network in networks:
        network.model.to(device)
    titles = column_titles(networks, options.checkpoints)
    with Progress("sheet", min(options.limit, len(dataset)), enabled=not options.quiet) as bar:
        picture = comparison(dataset, networks, titles, options.limit, cell_width=options.cell, progress=bar)
    save_png(picture, options.out)
    print(
        f"wrote {picture.width}x{picture.height} pixels (image, {', '.join(titles)}, truth) to {options.out}"
    )
    return 0


def column_titles(networks: Sequence[Trained], paths: Sequence[Path]) -> list[str]:
    """The networks' names; where they do not tell the networks apart, the files' names, or their whole paths."""
    for titles in ([n.settings.arch for n in networks], [p.stem for p in paths]):
        if len(set(titles)) == len(titles):
            return titles
    return [str(p.with_suffix("")) for p in paths]


def comparison(
    dataset: Dataset,
    networks: Sequence[Trained],
    titles: Sequence[str],
    limit: int = 6,
    *,
    cell_width: int = 320,
    progress: Progress | None = None,
) -> Image.Image:
    """Images of a data set, what each network predicts for them, and the truth (Long et al. 2015, figure 4).

    Args:
        titles: of the networks' columns; of several tasks each network has a column for each, and so has the truth.
        limit: how many images, spread evenly over the data set.
        cell_width: width of a picture in pixels.
        progress: advanced by one per image.

    Raises:
        ValueError: a network has another number of classes than the data set, or takes other images; ``limit`` or
            ``cell_width`` is below 1; there is no image.
    """
    if limit < 1 or cell_width < 1:
        raise ValueError(f"limit and cell_width must be at least 1, got {limit} and {cell_width}")
    if len(dataset) == 0:
        raise ValueError("the data set to show has no images")
    for title, network in zip(titles, networks, strict=True):
        check_images(title, network.model.preprocess, network.settings.data, dataset.name, dataset)
        check_classes(title, network.classes, dataset.name, dataset.classes)
    rows, tasks = [], tasks_of(dataset)
    for index in np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).round().astype(int).tolist():
        sample = dataset[index]
        labels = [*(predict_image(network, sample.image) for network in networks), sample.label]
        rows.append((shown(sample.image), *(each for label in labels for each in numbered(label, tasks))))
        if progress is not None:
            progress.advance()
    legend = dataset.classes if len(dataset.classes) <= LEGEND_CLASSES else None
    columns = [f"{title} {task}".strip() for title in (*titles, "truth") for task in tasks or [""]]
    return sheet(rows, ("image", *columns), dataset.palette, legend, cell_width)
