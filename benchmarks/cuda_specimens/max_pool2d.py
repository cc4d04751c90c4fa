"""VGG16's first pool, both ways, and AlexNet's in channels_last, at the shapes of the Triton specimens."""

from __future__ import annotations

import torch

from benchmarks.specimen import CudaSpecimen
from benchmarks.specimens.max_pool2d import ALEXNET, VGG, _case

_THREADS = 128
TYPES = {torch.float32: "float", torch.bfloat16: "__nv_bfloat16"}


def _specimen(name: str, kernel: str, shape: tuple[int, int, int, int], dtype: torch.dtype) -> CudaSpecimen:
    backward = "bwd" in kernel
    n, channels, height, width = shape
    lines, length = (n, width // 2 * channels) if shape == ALEXNET else (n * channels, width // 2)
    parts = -(-length // (4 * 32))  # a warp takes 32 numbers of a line four times, the last part of it fewer
    turns = length / (32 * parts)  # of the loop for winners behind a ReLU, one of three in the forward
    return CudaSpecimen(
        name=name,
        kernel=kernel.replace("T", TYPES[dtype]),
        case=_case(shape, dtype.itemsize, backward),
        blocks=lines * (height // 2) / 4 * parts,
        threads=_THREADS,
        trips={"unsigned number = line.first": turns if backward else (0, turns, 0)},
        triton=[name],
    )


SPECIMENS = [
    _specimen("fp32, 2×2, with winners", "max_pool2d_fwd_kernel<T, 2, false>", VGG, torch.float32),
    _specimen("bf16, 2×2, with winners", "max_pool2d_fwd_kernel<T, 2, false>", VGG, torch.bfloat16),
    _specimen("fp32, 2×2, gradient", "max_pool2d_bwd_kernel<T, 2, 2, false>", VGG, torch.float32),
    _specimen(
        "fp32, channels_last, 3×3, with winners", "max_pool2d_fwd_kernel<T, 3, true>", ALEXNET, torch.float32
    ),
    _specimen(
        "fp32, channels_last, 3×3, gradient", "max_pool2d_bwd_kernel<T, 3, 2, true>", ALEXNET, torch.float32
    ),
]
