"""Write .caffemodel files, well formed or not: an encoder of the protobuf wire format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

CONVOLUTION, INNER_PRODUCT, DECONVOLUTION, DROPOUT = 4, 14, 39, 6


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def integer(number: int, value: int) -> bytes:
    return tag(number, 0) + varint(value)


def message(number: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return tag(number, 2) + varint(len(content)) + content


def text(number: int, value: str) -> bytes:
    return message(number, value.encode())


def numbers(values: np.ndarray, *, packed: bool = True) -> bytes:
    """`data` of float32 values, `double_data` of float64 ones."""
    number, wire = (5, 5) if values.dtype == np.float32 else (8, 1)
    if packed:
        return message(number, values.tobytes())
    tags = np.full((values.size, 1), tag(number, wire)[0], np.uint8)
    return np.hstack([tags, values.reshape(-1, 1).view(np.uint8)]).tobytes()


def shape(sides: Sequence[int], *, packed: bool = True) -> bytes:
    if packed:
        return message(7, message(1, *map(varint, sides)))
    return message(7, *(integer(1, side) for side in sides))


def legacy(sides: Sequence[int]) -> bytes:
    """num, channels, height, width, with ones in front."""
    four = [1] * (4 - len(sides)) + list(sides)
    return b"".join(integer(number, side) for number, side in enumerate(four, 1))


def blob(values: np.ndarray, *, old: bool = False, packed: bool = True) -> bytes:
    """The content of a BlobProto, in the order in which Caffe writes it."""
    if old:
        return legacy(values.shape) + numbers(values, packed=packed)
    parts = [numbers(values, packed=packed), shape(values.shape, packed=packed)]
    return b"".join(parts if values.dtype == np.float32 else reversed(parts))


def v2(name: str, kind: str, blobs: Iterable[bytes] = ()) -> bytes:
    """A layer, with fields that a reader of weights does not need."""
    unneeded = [
        text(3, "data"),
        text(4, name),
        integer(10, 1),
        tag(999, 5) + bytes(4),
        tag(998, 1) + bytes(8),
    ]
    return message(100, text(1, name), text(2, kind), *unneeded, *(message(7, one) for one in blobs))


def v1(name: str, kind: int, blobs: Iterable[bytes] = ()) -> bytes:
    """An old layer; 7 and 8 are the learning rates and decays of its blobs."""
    rates = (tag(7, 5) + np.float32(1).tobytes()) * 2
    return message(
        2, text(2, "data"), text(4, name), integer(5, kind), *(message(6, one) for one in blobs), rates
    )


def network(*layers: bytes, name: str = "net") -> bytes:
    return b"".join([text(1, name), text(3, "data"), *(integer(4, side) for side in (1, 3, 8, 8)), *layers])
