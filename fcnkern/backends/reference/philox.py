"""Philox4x32-10 (Salmon et al., SC 2011) on int64 tensors, and the masks made of it."""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low words of a·b for words below 2³², without overflowing int64."""
    low_part = (a & 0xFFFF) * b
    high = ((a >> 16) * b + (low_part >> 16)) >> 16
    return high, (a * b) & _WORD


def philox4x32(key: Tensor, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words for each counter.

    Args:
        key: 64 bits as an int64 scalar tensor.
        counter: four int64 tensors of words below 2³², broadcast against each other.
    """
    k0, k1 = key & _WORD, (key >> 32) & _WORD
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def cell_words(seed: Tensor, shape: tuple[int, int, int], cell: int) -> Tensor:
    """First word of each pixel's sampling cell: N×H×W int64, counter (X // cell, Y // cell, n, 0)."""
    n, height, width = (torch.arange(size, device=seed.device) for size in shape)
    counter = (width // cell, (height // cell)[:, None], n[:, None, None], torch.zeros_like(n[:1]))
    return philox4x32(seed, counter)[0]


def element_words(seed: Tensor, count: int) -> Tensor:
    """One word per element of a tensor: element e has word e % 4 of counter (e // 4, e // 4 >> 32, 0, 1)."""
    block = torch.arange((count + 3) // 4, device=seed.device)
    zero = torch.zeros_like(block)
    return torch.stack(philox4x32(seed, (block & _WORD, block >> 32, zero, zero + 1)), dim=1).flatten()[
        :count
    ]
