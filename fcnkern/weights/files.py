"""Named tensors from and to local files. Nothing is downloaded and no pickled code is run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fcnkern._files import read_plain, write_atomically
from fcnkern.data.preprocess import preset
from fcnkern.weights.caffe import read_caffemodel

# Checkpoints wrap their state_dict under one of these (pytorch-fcn's, torchvision's references', this package's).
_WRAPPERS = ("model_state_dict", "state_dict", "model")
_PREPROCESS, _TASKS = "preprocess", "tasks"


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        tensors: all floating-point tensors by name, on the CPU.
        preprocess: the input convention that the file states, by name of a preset, or None. Files of `save` and
            checkpoints of this package state it; no other format does.
        tasks: numbers of classes by task, where the file states that its head is one for several; stated likewise.
    """

    tensors: dict[str, Tensor]
    preprocess: str | None = None
    tasks: dict[str, int] = field(default_factory=dict)


def load(path: str | os.PathLike[str], *, sha256: str | None = None) -> dict[str, Tensor]:
    """All floating-point tensors of a file, on the CPU: .caffemodel, .npz, .safetensors, or .pth, .pt and .tar of
    torch.save. In a .caffemodel they are called by layer: `<layer>.weight`, `<layer>.bias`.

    Args:
        sha256: what `sha256_of` the file must be, in hexadecimal; not checked if None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown extension, another checksum, a truncated or damaged file, one that needs unpickling of
            code, one without tensors, or with a sparse, nested, empty ("meta") or float8 one. The message names the
            file.
    """
    if sha256 is not None:
        sha256_of(path, expected=sha256)
    return read_weights(path).tensors


def read_weights(path: str | os.PathLike[str]) -> WeightFile:
    """As `load`, with what the file says of itself.

    Raises: as `load`.
    """
    file = _existing(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{file}: unknown weights format {file.suffix!r}, expected one of {', '.join(_READERS)}"
        )
    try:
        weights = reader(file)
    except Exception as error:  # NumPy, pickle and torch raise many types on a damaged file
        raise ValueError(f"{file}: not a readable {file.suffix} file, perhaps truncated ({error})") from error
    if not weights.tensors:
        raise ValueError(f"{file}: contains no floating-point tensors")
    for name, value in weights.tensors.items():
        if not _is_plain(value):
            raise ValueError(
                f"{file}: {name} is {value.dtype}, {value.layout}, on {value.device}, wanted a dense tensor "
                "of 16, 32 or 64 bit floats on the CPU"
            )
    return weights


def _is_plain(value: Tensor) -> bool:
    """Whether layers can take it: no sparse or nested tensor, none without content, no float8 in need of a scale."""
    dense = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
    return dense and value.itemsize > 1


def sha256_of(path: str | os.PathLike[str], *, expected: str | None = None) -> str:
    """The SHA-256 of a file, in lower-case hexadecimal.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not the `expected` one.
    """
    digest = hashlib.sha256()
    file = _existing(path)
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    found = digest.hexdigest()
    if expected is not None and found != expected.strip().lower():
        raise ValueError(f"{file}: SHA-256 is {found}, wanted {expected}")
    return found


def save(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    *,
    preprocess: str | None = None,
    tasks: Mapping[str, int] | None = None,
) -> None:
    """Write tensors to a .safetensors file, which is then complete or as it was.

    Args:
        state: names to tensors of any device; tensors that share memory are written each for itself.
        preprocess: the preset with which images must be prepared for these weights; stated in the file.
        tasks: numbers of classes by name, where one head has those of several tasks; stated in the file.

    Raises:
        ValueError: another extension, an unknown preset, or no tensors.
        TypeError: a value is not a tensor.
    """
    file = Path(path)
    if file.suffix.lower() != ".safetensors":
        raise ValueError(f"{file}: weights are written as .safetensors, got {file.suffix!r}")
    metadata = {} if preprocess is None else {_PREPROCESS: preset(preprocess).name}
    if tasks:
        metadata[_TASKS] = json.dumps(dict(tasks))
    if not state:
        raise ValueError(f"{file}: there are no tensors to write")
    wrong = [
        f"{name} is a {type(value).__name__}"
        for name, value in state.items()
        if not isinstance(value, Tensor)
    ]
    if wrong:
        raise TypeError(f"state must hold tensors only, {wrong[0]}")
    tensors = _separate(state)
    write_atomically(file, lambda out: out.write(safetensors.torch.save(tensors, metadata)))


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, no two of them in the same memory."""
    out: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in taken or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        out[name] = tensor
    return out


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"weights file not found: {file}")
    return file


def _read_caffemodel(file: Path) -> WeightFile:
    return WeightFile(read_caffemodel(file).state())


def _read_npz(file: Path) -> WeightFile:
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("a single array, not an archive of named arrays")
    with archive:
        arrays = {name: archive[name] for name in archive.files}
    return WeightFile(
        {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind == "f"}
    )


def _read_safetensors(file: Path) -> WeightFile:
    with safetensors.safe_open(file, framework="pt") as content:
        metadata = content.metadata() or {}
    try:
        tasks = json.loads(metadata.get(_TASKS, "{}"))
    except ValueError:
        tasks = None
    return _stating(_floating(safetensors.torch.load_file(file)), metadata.get(_PREPROCESS), tasks)


def _read_torch(file: Path) -> WeightFile:
    content = read_plain(file)
    record = content if isinstance(content, Mapping) else {}
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"a state_dict was expected, the file holds a {type(content).__name__}")
    return _stating(_floating(content), record.get(_PREPROCESS), record.get(_TASKS))


def _stating(tensors: dict[str, Tensor], preprocess: Any, tasks: Any) -> WeightFile:
    """The content of a file with what it states of itself, where this package can have stated it."""
    counts = (
        tasks if isinstance(tasks, dict) and all(isinstance(count, int) for count in tasks.values()) else {}
    )
    try:
        stated = preset(preprocess).name if isinstance(preprocess, str) else None
    except ValueError:
        stated = None
    return WeightFile(tensors, stated, counts)


def _floating(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor) and value.is_floating_point()
    }


_READERS: dict[str, Callable[[Path], WeightFile]] = {
    ".caffemodel": _read_caffemodel,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".tar": _read_torch,
}
