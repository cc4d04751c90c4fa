"""Read named tensors from a local file. Nothing is downloaded and no pickled code is run."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

# Checkpoints wrap their state_dict under one of these (pytorch-fcn's, torchvision's references', this package's).
_WRAPPERS = ("model_state_dict", "state_dict", "model")
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    safetensors.SafetensorError,
)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All floating-point tensors of a .npz, .safetensors, .pth, .pt or .tar (torch.save) file, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown extension, a truncated or damaged file, one that needs unpickling of code, or one
            without tensors. The message names the file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"weights file not found: {file}")
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{file}: unknown weights format {file.suffix!r}, expected one of {', '.join(_READERS)}"
        )
    try:
        tensors = reader(file)
    except _UNREADABLE as error:
        raise ValueError(f"{file}: not a readable {file.suffix} file, perhaps truncated ({error})") from error
    if not tensors:
        raise ValueError(f"{file}: contains no floating-point tensors")
    return tensors


def _read_npz(file: Path) -> dict[str, Tensor]:
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("a single array, not an archive of named arrays")
    with archive:
        arrays = {name: archive[name] for name in archive.files}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind == "f"}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    return _floating(safetensors.torch.load_file(file))


def _read_torch(file: Path) -> dict[str, Tensor]:
    content = torch.load(file, map_location="cpu", weights_only=True)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"a state_dict was expected, the file holds a {type(content).__name__}")
    return _floating(content)


def _floating(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in content.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".tar": _read_torch,
}
