"""Read .caffemodel files: the trained network of a Caffe snapshot, without Caffe and without generated code.

The messages are those of caffe.proto: NetParameter with V2 layers (`layer`, 2014 and later) or V1 layers
(`layers`), BlobProto with a BlobShape or the legacy num, channels, height, width. Everything else in a file, such
as the parameters of a layer, is skipped. Messages are read to a fixed depth (network, layer, blob, shape) and tensors
are allocated only after shape and data have been found to agree, so that memory is bounded by the size of the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fcnkern.weights.protobuf import LENGTH, VARINT, WIDTHS, Field, WireError, WireFile

MAX_LAYERS, MAX_BLOBS, MAX_AXES, MAX_SIDE, MAX_NAME = 10_000, 50_000, 32, 2**31 - 1, 1_000
_NET_NAME = 1
_DIM = 1
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_LEGACY = (1, 2, 3, 4)  # num, channels, height, width
_NUMBERS: dict[int, np.dtype[Any]] = {_DATA: np.dtype("<f4"), _DOUBLE_DATA: np.dtype("<f8")}
_BLOB_FIELDS = {1: "num", 2: "channels", 3: "height", 4: "width", 5: "data", 7: "shape", 8: "double_data"}
_V0_LAYER = 1


class _LayerFields(NamedTuple):
    """Field numbers of one version of the layer message."""

    label: str
    name: int
    type: int
    blobs: int


_LAYERS = {100: _LayerFields("layer", 1, 2, 7), 2: _LayerFields("layers", 4, 5, 6)}

# In the order of V1LayerParameter.LayerType, from 0, under the names of V2.
_V1_TYPES = (
    "None", "Accuracy", "BNLL", "Concat", "Convolution", "Data", "Dropout", "EuclideanLoss", "Flatten",
    "HDF5Data", "HDF5Output", "Im2col", "ImageData", "InfogainLoss", "InnerProduct", "LRN",
    "MultinomialLogisticLoss", "Pooling", "ReLU", "Sigmoid", "Softmax", "SoftmaxWithLoss", "Split", "TanH",
    "WindowData", "Eltwise", "Power", "SigmoidCrossEntropyLoss", "HingeLoss", "MemoryData", "ArgMax",
    "Threshold", "DummyData", "Slice", "MVN", "AbsVal", "Silence", "ContrastiveLoss", "Exp",
    "Deconvolution",
)  # fmt: skip


@dataclass(frozen=True)
class CaffeLayer:
    """A layer of a network: its name, its type under the name of V2 ("Convolution"), and its blobs."""

    name: str
    type: str
    blobs: tuple[Tensor, ...]

    def parameters(self) -> dict[str, Tensor]:
        """Blobs by name: `<layer>.weight`, `<layer>.bias`, then `<layer>.blob2` and so on."""
        kinds = ["weight", "bias", *(f"blob{index}" for index in range(2, len(self.blobs)))]
        return {f"{self.name}.{kind}": blob for kind, blob in zip(kinds, self.blobs, strict=False)}


@dataclass(frozen=True)
class CaffeNetwork:
    """What a .caffemodel holds: the network's name and its layers in the file's order, also those without blobs."""

    name: str
    layers: tuple[CaffeLayer, ...]

    def state(self) -> dict[str, Tensor]:
        """All blobs by name. Of layers with the same name the last one counts, as when Caffe copies weights."""
        return {key: value for layer in self.layers for key, value in layer.parameters().items()}


def read_caffemodel(path: str | os.PathLike[str]) -> CaffeNetwork:
    """Read a .caffemodel file of either version, float or double data, new or legacy blob shapes.

    Weights keep Caffe's order, which is PyTorch's: convolutions (out, in / groups, kh, kw), deconvolutions (in, out /
    groups, kh, kw), inner products (out, in). A legacy blob, always of four axes, loses those that are not its
    layer's: biases become (out,), inner products (out, in). Peak memory is that of the tensors.

    Raises:
        OSError: the file cannot be read.
        WireError (a ValueError): a damaged, truncated or foreign file. The message gives byte offset and field.
    """
    with Path(path).open("rb") as file:
        return _Reader(WireFile(file)).network()


@dataclass
class _BlobHead:
    """A blob's shape and how many numbers it holds, before any of them is read."""

    shape: list[int] | None = None
    legacy: dict[int, int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_NUMBERS, 0))

    @property
    def is_legacy(self) -> bool:
        return self.shape is None and bool(self.legacy)

    @property
    def sides(self) -> list[int]:
        return [self.legacy.get(axis, 0) for axis in _LEGACY] if self.is_legacy else self.shape or []


class _Reader:
    """Turns the messages of one file into a CaffeNetwork."""

    def __init__(self, file: WireFile) -> None:
        self._file = file
        self._blobs = 0

    def network(self) -> CaffeNetwork:
        name = ""
        layers: list[CaffeLayer] = []
        for part in self._file.fields(0, self._file.size, "network"):
            if part.number == _NET_NAME:
                name = self._text(part, "network.name")
            elif part.number in _LAYERS:
                if len(layers) == MAX_LAYERS:
                    raise WireError(part.offset, "network", f"more than {MAX_LAYERS} layers")
                numbers = _LAYERS[part.number]
                layers.append(self._layer(part, numbers, f"{numbers.label}[{len(layers)}]"))
        if not layers:
            raise WireError(self._file.size, "network", "no layers of either version: not a .caffemodel")
        return CaffeNetwork(name, tuple(layers))

    def _layer(self, part: Field, numbers: _LayerFields, path: str) -> CaffeLayer:
        _expect(part, path, LENGTH)
        name, kind = "", ""
        blobs: list[tuple[Tensor, bool]] = []
        for inner in self._file.fields(part.start, part.end, path):
            if inner.number == numbers.name:
                name = self._text(inner, f"{path}.name")
            elif inner.number == numbers.type:
                kind = self._type(inner, numbers, f"{path}.type")
            elif inner.number == numbers.blobs:
                blobs.append(self._blob(inner, f"{path}.blobs[{len(blobs)}]"))
            elif inner.number == _V0_LAYER:
                problem = "a V0 layer; Caffe's tool upgrade_net_proto_binary rewrites such files"
                raise WireError(inner.offset, path, problem)
        plain = tuple(
            _without_legacy_axes(blob, kind, index) if legacy else blob
            for index, (blob, legacy) in enumerate(blobs)
        )
        return CaffeLayer(name, kind, plain)

    def _type(self, part: Field, numbers: _LayerFields, path: str) -> str:
        if numbers.label == "layer":
            return self._text(part, path)
        _expect(part, path, VARINT)
        return _V1_TYPES[part.value] if part.value < len(_V1_TYPES) else f"V1 type {part.value}"

    def _text(self, part: Field, path: str) -> str:
        _expect(part, path, LENGTH)
        if part.end - part.start > MAX_NAME:
            raise WireError(part.offset, path, f"a name of {part.end - part.start} bytes")
        try:
            return self._file.data(part.start, part.end).decode()
        except UnicodeDecodeError as error:
            raise WireError(part.offset, path, "not UTF-8 text") from error

    def _blob(self, part: Field, path: str) -> tuple[Tensor, bool]:
        """The tensor of a blob, and whether its shape is a legacy one. Two passes: shape and count, then numbers."""
        _expect(part, path, LENGTH)
        self._blobs += 1
        if self._blobs > MAX_BLOBS:
            raise WireError(part.offset, path, f"more than {MAX_BLOBS} blobs")
        head = self._blob_head(part, path)
        number = _DOUBLE_DATA if head.counts[_DOUBLE_DATA] else _DATA
        shape, count = head.sides, head.counts[number]
        if math.prod(shape) != count or count == 0:
            problem = f"shape {tuple(shape)} of {math.prod(shape)} numbers, but {count} are stored"
            raise WireError(part.offset, path, problem)
        values = np.empty(count, _NUMBERS[number])
        filled = 0
        for inner in self._file.fields(part.start, part.end, path):
            if inner.number == number:
                filled += self._file.numbers_into(inner, values[filled:])
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(native).reshape(shape), head.is_legacy

    def _blob_head(self, part: Field, path: str) -> _BlobHead:
        head = _BlobHead()
        for inner in self._file.fields(part.start, part.end, path):
            name = f"{path}.{_BLOB_FIELDS.get(inner.number)}"
            if inner.number in _LEGACY:
                _expect(inner, name, VARINT)
                head.legacy[inner.number] = _side(inner, inner.value, name)
            elif inner.number == _SHAPE:
                head.shape = (head.shape or []) + self._shape(inner, name)
                if len(head.shape) > MAX_AXES:
                    raise WireError(inner.offset, name, f"more than {MAX_AXES} axes")
            elif inner.number in _NUMBERS:
                head.counts[inner.number] += _count(inner, name)
        return head

    def _shape(self, part: Field, path: str) -> list[int]:
        _expect(part, path, LENGTH)
        sides: list[int] = []
        for side, inner in self._dims(part, path):
            sides.append(_side(inner, side, path))
            if len(sides) > MAX_AXES:
                raise WireError(inner.offset, path, f"more than {MAX_AXES} axes")
        return sides

    def _dims(self, part: Field, path: str) -> Iterator[tuple[int, Field]]:
        for inner in self._file.fields(part.start, part.end, path):
            if inner.number == _DIM:
                _expect(inner, f"{path}.dim", VARINT, LENGTH)
                for side in self._file.varints(inner, f"{path}.dim"):
                    yield side, inner


def _expect(part: Field, path: str, *wires: int) -> None:
    if part.wire not in wires:
        wanted = " or ".join(map(str, wires))
        raise WireError(part.offset, path, f"wire type {part.wire}, expected {wanted}")


def _side(part: Field, value: int, path: str) -> int:
    """A side of a blob. Negative numbers come as values of 2**63 and more."""
    if not 0 < value <= MAX_SIDE:
        shown = value - 2**64 if value >= 2**63 else value
        raise WireError(part.offset, path, f"a side of {shown}, expected 1 to {MAX_SIDE}")
    return value


def _count(part: Field, path: str) -> int:
    """How many numbers a data field holds."""
    width = _NUMBERS[part.number].itemsize
    if part.wire != LENGTH:
        _expect(part, path, *(wire for wire, size in WIDTHS.items() if size == width))
        return part.repeats
    if (part.end - part.start) % width:
        raise WireError(part.offset, path, f"{part.end - part.start} bytes, not a multiple of {width}")
    return (part.end - part.start) // width


def _without_legacy_axes(blob: Tensor, kind: str, index: int) -> Tensor:
    """A legacy blob, with leading axes of one, in the shape that its layer has in new files."""
    if index == 0 and kind in ("Convolution", "Deconvolution"):
        return blob
    axes = 2 if index == 0 and kind == "InnerProduct" else 1
    leading = blob.dim() - axes
    return blob.reshape(blob.shape[leading:]) if math.prod(blob.shape[:leading]) == 1 else blob
