"""What tells one data set from another, so that a run is not resumed on other images."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from fcnkern.data import Dataset


def fingerprint(dataset: Dataset, pipeline: str | None = None) -> dict[str, Any]:
    """Number of images, classes, name and checksum of the first image and its label; checksum of a file."""
    first = dataset[0]
    checksum = zlib.crc32(first.label.tobytes(), zlib.crc32(first.image.tobytes()))
    record = {
        "images": len(dataset),
        "classes": list(dataset.classes),
        "first image": first.name,
        "checksum of the first image": f"{checksum:08x}",
    }
    if pipeline is not None:
        record["checksum of the pipeline"] = f"{zlib.crc32(Path(pipeline).read_bytes()):08x}"
    return record


def check_same_data(stored: dict[str, Any], dataset: Dataset, pipeline: str | None = None) -> None:
    """Refuses a data set, or a file of augmentation, other than that of a fingerprint.

    Raises:
        ValueError: naming each difference.
    """
    found = fingerprint(dataset, pipeline)
    differences = [
        f"{what}: {_text(found[what])} instead of {_text(value)}"
        for what, value in stored.items()
        if found[what] != value
    ]
    if differences:
        raise ValueError(
            f"data set {dataset.name} is not the one the run began with: {'; '.join(differences)}"
        )


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
