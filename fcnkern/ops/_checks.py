"""Argument checks shared by the operations; each error names the argument, what came and what was wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.resample import as_whole

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LABELS = (torch.uint8, torch.int16, torch.int32, torch.int64)
MAX_SEED = 2**63 - 1


def shape_text(tensor: Tensor) -> str:
    """Dtype and sizes of a tensor for a message."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {'×'.join(str(int(n)) for n in tensor.shape) or 'scalar'}"


def check_tensor(name: str, tensor: Tensor, dims: int, dtypes: tuple[torch.dtype, ...]) -> None:
    """Refuses what is no tensor, has another rank or another element type."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimensions, got {shape_text(tensor)}")
    if tensor.dtype not in dtypes:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must be of type {wanted}, got {shape_text(tensor)}")


def check_images(name: str, tensor: Tensor, dims: int, dtypes: tuple[torch.dtype, ...]) -> None:
    """`check_tensor`, and no dimension may be empty."""
    check_tensor(name, tensor, dims, dtypes)
    if 0 in tensor.shape:
        raise ValueError(f"{name} must not be empty, got {shape_text(tensor)}")


def check_shape(name: str, tensor: Tensor, wanted: tuple[int, ...], why: str) -> None:
    """Refuses a tensor of another shape than ``wanted``; ``why`` says where that shape comes from."""
    if tuple(tensor.shape) != wanted:
        sizes = "×".join(str(int(n)) for n in wanted)
        raise ValueError(f"{name} must be {sizes} ({why}), got {shape_text(tensor)}")


def check_same(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    """Refuses a tensor on another device or of another element type than ``like``."""
    check_device(name, tensor, like_name, like)
    if tensor.dtype != like.dtype:
        raise TypeError(f"{name} must be {like.dtype} as {like_name} is, got {tensor.dtype}")


def check_device(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    """Refuses a tensor on another device than ``like``."""
    if tensor.device != like.device:
        raise ValueError(f"{name} must be on {like.device} as {like_name} is, got {tensor.device}")


def check_ignore_index(ignore_index: int) -> None:
    """Refuses what is no whole number of 64 bits."""
    if not -(2**63) <= as_whole("ignore_index", ignore_index) < 2**63:
        raise ValueError(f"ignore_index must lie in -2**63..2**63-1, got {ignore_index}")


def check_undifferentiated(name: str, tensor: Tensor) -> None:
    """Refuses a tensor that asks for a gradient, which it would not get."""
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} gets no gradient, got one that requires it: detach it")


def seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """A seed as an int64 tensor of one element on ``device``; None draws one from torch's generator."""
    if seed is None:
        return torch.randint(0, MAX_SEED, (), dtype=torch.int64, device=device)
    if isinstance(seed, Tensor):
        if seed.numel() != 1 or seed.dtype != torch.int64:
            raise ValueError(f"seed must be an int64 tensor of one element, got {shape_text(seed)}")
        return seed.to(device)
    seed = as_whole("seed", seed, "a whole number or an int64 tensor")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in 0..2**64-1, got {seed}")
    return torch.full((), seed if seed <= MAX_SEED else seed - 2**64, dtype=torch.int64, device=device)


def autocast(tensor: Tensor) -> Tensor:
    """The tensor in the type in which autocast runs matrix products; unchanged outside autocast and in fp64."""
    kind = tensor.device.type
    if tensor.is_meta or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def dense_format(tensor: Tensor) -> torch.memory_format:
    """The layout of an output that follows ``tensor``: channels_last where that is its only dense layout."""
    if tensor.is_contiguous() or not tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def densely(result: Tensor, like: Tensor) -> Tensor:
    """``result`` in the `dense_format` of ``like``, which is what the fake kernels promise."""
    return result.contiguous(memory_format=dense_format(like))
