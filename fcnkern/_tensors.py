"""What operations and backends alike say of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.resample import Pair


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The type that sums over a storage type, losses and probabilities have."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def crop(tensor: Tensor, offset: Pair, size: Pair) -> Tensor:
    """The window of (N, C, H, W) rows and columns that begins at ``offset``."""
    return tensor[:, :, offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]
