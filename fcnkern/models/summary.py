"""The networks that `create` makes, in numbers."""

from __future__ import annotations

from typing import Any

import torch

from fcnkern.models.registry import create, list_models


def summarize(classes: int = 21) -> list[dict[str, Any]]:
    """A record for each network at full width.

    Returns:
        of each: `name`; `parameters` that learn, with fixed upsampling; `stride` and `receptive_field` in pixels of
        the coarsest feature map; `skip_offsets`, coarsest skip first, where the skip is cropped at its start (or,
        negative, the upsampled scores are); `final_offset`, the crop of the last upsampling; `min_size`, the side
        below which images are padded; `preprocess`, the preset of input images.

    Raises:
        ValueError: `classes` < 1.
    """
    records = []
    for name in list_models():
        with torch.device("meta"):
            model = create(name, classes)
        alignment = model.alignment
        records.append(
            {
                "name": name,
                "parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
                "stride": alignment.stride,
                "receptive_field": alignment.field,
                "skip_offsets": [step.offset for step in alignment.steps],
                "final_offset": alignment.final_offset,
                "min_size": alignment.min_size,
                "preprocess": model.preprocess,
            }
        )
    return records


def models_table(records: list[dict[str, Any]]) -> str:
    """The records of `summarize` as aligned text."""
    heads = ("name", "parameters", "stride", "field", "skip crops", "final crop", "padded below", "input")
    rows = [heads]
    for record in records:
        skips = ", ".join(map(str, record["skip_offsets"])) or "-"
        numbers = (record["stride"], record["receptive_field"], skips, record["final_offset"])
        rows.append(
            (
                record["name"],
                f"{record['parameters']:,}",
                *map(str, numbers),
                str(record["min_size"]),
                record["preprocess"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in (0, len(heads) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
