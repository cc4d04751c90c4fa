"""Tensors and label maps as the C++ kernels take them: addresses, type codes, sizes and strides."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_CLASSES = 65534
LABEL_TYPES = {torch.uint8: 0, torch.int16: 1, torch.int32: 2, torch.int64: 3}


def label_map(labels: Tensor) -> tuple[int, int, tuple[int, ...]]:
    """An (N, H, W) label map as (address, type code, strides)."""
    return labels.data_ptr(), LABEL_TYPES[labels.dtype], labels.stride()
