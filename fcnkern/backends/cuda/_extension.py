"""The compiled extension, and the stream that its kernels are queued on."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from fcnkern._native import cuda_extension, cuda_missing_reason

if cuda_extension is None:
    raise ImportError(cuda_missing_reason)

kernels: ModuleType = cuda_extension

Stream = tuple[int, int]
"""Index of a device and address of one of its streams."""


def stream_of(tensor: Tensor) -> Stream:
    """PyTorch's current stream on the tensor's device."""
    if tensor.device.type == "cpu":
        return (0, 0)
    stream = torch.cuda.current_stream(tensor.device)
    return (stream.device_index, stream.cuda_stream)
