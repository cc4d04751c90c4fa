"""What the experiments have in common: their folder, their data, and how they end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fcnkern._files import write_atomically
from fcnkern.data import Dataset, Sample, open_dataset, tasks_of, wanted_preset
from fcnkern.engine.config import CONFIG, read_config, write_config
from fcnkern.engine.settings import TrainSettings

IMAGES, LABELS, SOURCE = "images", "labels", "source"


class StoppedByError(RuntimeError):
    """A signal stopped an experiment; the same command goes on with it.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int, out: Path) -> None:
        super().__init__(f"stopped; the same command goes on with the experiment in {out}")
        self.signal = signal


def begin(settings: TrainSettings, out: Path) -> None:
    """Makes ``out`` the folder of an experiment, or sees that it is the folder of this very one.

    Raises:
        ValueError: the folder has another experiment, or one with other settings.
    """
    config = out / CONFIG
    if config.exists():
        before = TrainSettings(**read_config(config))
        try:
            before.changed(**settings.to_dict())
            if before.data != settings.data:
                raise ValueError(
                    f"data cannot change (the experiment has {before.data}, got {settings.data})"
                )
        except ValueError as error:
            raise ValueError(f"out {out} holds another experiment: {error}") from error
    write_config(config, settings)


def resized(spec: str, size: tuple[int, int], splits: Sequence[str], folder: Path) -> str:
    """Writes a copy of a data set with images of one size, which training then need not scale each time.

    Images are scaled bilinearly over the area that a new pixel covers, labels by the nearest pixel. A split that is
    there is complete and left as it is.

    Args:
        size: (height, width).
        folder: where the copy goes, in the layout of ``fcnkern.data.folder``.

    Returns:
        the name of the copy, as ``open_dataset`` takes it.

    Raises:
        FileNotFoundError, ValueError: as ``open_dataset``, for any of the splits; a side below 1; larger images than
            PIL reads without a warning; images that are not in colour, or of several tasks; the folder has a copy of
            another data set.
    """
    height, width = size
    if min(size) < 1:
        raise ValueError(f"size must be at least 1x1, got {height}x{width}")
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and height * width > most:
        raise ValueError(f"size must be at most {most:,} pixels, got {height}x{width}")
    source = folder / SOURCE
    if source.exists() and source.read_text().strip() != spec:
        raise ValueError(
            f"{folder} is a copy of {source.read_text().strip()}, not of {spec}: choose another out"
        )
    datasets = {split: open_dataset(spec, split) for split in splits}
    for split, dataset in datasets.items():
        _check_scalable(dataset, spec)
        listing = folder / f"{split}.txt"
        if listing.exists():
            continue
        write_lines(source, [spec])
        stems = [_write_sample(dataset[index], split, size, folder) for index in range(len(dataset))]
        palette = [" ".join(map(str, colour)) for colour in dataset.palette.tolist()]
        for path, lines in (
            (folder / "classes.txt", dataset.classes),
            (folder / "palette.txt", palette),
            (listing, stems),
        ):
            write_lines(path, lines)
    return f"folder:{folder}"


def _check_scalable(dataset: Dataset, spec: str) -> None:
    if tasks := tasks_of(dataset):
        raise ValueError(
            f"size scales images of one label map, those of {spec} have {', '.join(tasks)}: do without size"
        )
    wanted = wanted_preset(dataset)
    if wanted is not None:
        raise ValueError(f"size scales colour images, those of {spec} are for {wanted!r}: do without size")


def _write_sample(sample: Sample, split: str, size: tuple[int, int], folder: Path) -> str:
    """Writes one sample; returns its stem, which splits never share as their images' names may."""
    stem, (height, width) = f"{split}/{sample.name}", size
    pictures = {
        IMAGES: Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR),
        LABELS: Image.fromarray(sample.label).resize((width, height), Image.Resampling.NEAREST),
    }
    for part, picture in pictures.items():
        path = folder / part / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return stem


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Writes a text file, all or nothing."""
    write_atomically(path, lambda file: file.write("\n".join([*lines, ""]).encode()))


def write_json(path: Path, record: Any) -> None:
    """Writes a JSON file, all or nothing."""
    write_lines(path, [json.dumps(record, indent=1, allow_nan=False)])
