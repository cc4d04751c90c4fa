"""Scores and their upsampling as the kernels of a label map take them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fcnkern.backends import _label_plan
from fcnkern.backends._arguments import FLOAT_TYPES
from fcnkern.backends._axes import Cells
from fcnkern.resample import Pair, Resample

_TILES_A_MULTIPROCESSOR = 8

_IDENTITY, _DECIDE, _ALL = range(3)
"""Codes of csrc/cuda/label_tiles.h's TileMode."""


def label_tiles(scores: Tensor, resample: Resample, size: Pair) -> tuple[Any, ...]:
    """The arguments for N×C×h×w ``scores`` that become ``size`` (H, W) labels.

    Raises:
        ValueError: too many classes.
    """
    plan = _label_plan.plan("CUDA", scores, resample, size)
    # The points of a tile must be few enough for shared memory, so neither axis may skip points.
    decides = plan.upsamples and max(plan.y.step, plan.x.step) <= 1
    mode = _IDENTITY if resample.kind == "identity" else _DECIDE if decides else _ALL
    given = scores.data_ptr(), FLOAT_TYPES[scores.dtype], tuple(scores.shape), scores.stride()
    columns = plan.columns.point.data_ptr(), plan.columns.fraction.data_ptr()
    rest = columns, plan.zero, plan.skip_zero, mode, _wanted_tiles(scores.device)
    return given, size, _cell_table(plan.y), _cell_table(plan.x), *rest


def _cell_table(cells: Cells) -> tuple[Any, ...]:
    addresses = cells.first.data_ptr(), cells.counts.data_ptr(), cells.start.data_ptr()
    return addresses, cells.step, cells.parts, cells.slots


@lru_cache(maxsize=16)
def _wanted_tiles(device: torch.device) -> int:
    """Tiles that keep the device busy to the end; a few in the emulator."""
    if device.type == "cpu":
        return 3
    return _TILES_A_MULTIPROCESSOR * int(torch.cuda.get_device_properties(device).multi_processor_count)
