"""Where a network runs, and in which precision."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from fcnkern.data import Batch
from fcnkern.engine.distributed import count, local_rank
from fcnkern.ops._checks import dense_format

AUTO = "auto"
AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = AUTO) -> torch.device:
    """The device of a name such as ``cpu``, ``cuda`` or ``cuda:1``; ``auto`` takes a GPU where there is one.

    Of several processes on a machine, each has the GPU of its local rank.

    Raises:
        ValueError: the name is no device's, or there is no such device on this machine.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and count() > 1:
        if device.index is not None:
            raise ValueError(
                f"device {name} is one GPU for {count()} processes: give cuda, each has its own then"
            )
        device = torch.device("cuda", local_rank())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device} does not exist: PyTorch finds {torch.cuda.device_count()} CUDA devices"
        )
    return device


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a network are."""
    return next(model.parameters()).device


def training_layout(device: torch.device) -> torch.memory_format:
    """How weights and images lie fastest in training on a device: channels last, but on a CPU without AVX-512.

    There oneDNN's backward passes take up to 1.5 times as long with channels last. Inference is mostly faster so.
    """
    if device.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return torch.contiguous_format
    return torch.channels_last


def place_for_training(model: nn.Module, device: torch.device) -> None:
    """Puts a network on a device, its convolutions' weights in the `training_layout`."""
    convert_conv2d_weight_memory_format(model.to(device), training_layout(device))


def moved(batch: Batch, model: nn.Module) -> Batch:
    """The batch on the device of a network, its images in the layout of the network's convolutions."""
    weight = next(p for p in model.parameters() if p.dim() == 4)
    images = batch.images.to(weight.device, memory_format=dense_format(weight))
    return batch._replace(images=images, labels=batch.labels.to(weight.device))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context of reduced precision: ``bf16`` and ``fp16`` run the products in 16 bits, ``fp32`` all as it is."""
    return torch.autocast(device.type, AUTOCAST_TYPES.get(precision), enabled=precision in AUTOCAST_TYPES)
