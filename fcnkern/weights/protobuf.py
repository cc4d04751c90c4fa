"""The protobuf wire format, read from a file in place: fields and their byte offsets, no message definitions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BufferedReader
from typing import NamedTuple

import numpy as np

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED32: 4, FIXED64: 8}
_LONGEST_VARINT = 10
_LONGEST_RUN = 1 << 16


class WireError(ValueError):
    """A file that is not what its format says: the byte offset, the field, and what is wrong."""

    def __init__(self, offset: int, field: str, problem: str) -> None:
        super().__init__(f"byte {offset}, {field}: {problem}")


class Field(NamedTuple):
    """One field, or a run of fixed-width fields of the same number that follow one another.

    Attributes:
        offset: byte of the (first) tag; start: first byte of the (first) value; end: first byte after it all.
        value: of a varint, unsigned; 0 for the others.
        repeats: fields in the run.
    """

    number: int
    wire: int
    offset: int
    start: int
    end: int
    value: int = 0
    repeats: int = 1


class WireFile:
    """Random access to the messages of one file. It holds no more of the file than the caller asks for."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)

    def fields(self, start: int, end: int, message: str) -> Iterator[Field]:
        """The fields of the message in bytes start ... end, in the file's order; `message` names it in errors.

        Raises:
            WireError: a field does not fit between `start` and `end`, or its tag is none of protobuf's.
        """
        while start < end:
            field = self._field(start, end, message)
            yield field
            start = field.end

    def varints(self, field: Field, name: str) -> Iterator[int]:
        """The unsigned values of a repeated varint field, packed or not."""
        if field.wire == VARINT:
            yield field.value
            return
        position = field.start
        while position < field.end:
            value, position = self._varint(position, field.end, name)
            yield value

    def data(self, start: int, end: int) -> bytes:
        """The bytes start ... end, all of them.

        Raises:
            WireError: the file has become shorter since it was opened.
        """
        content = bytearray(end - start)
        self._read_into(start, memoryview(content))
        return bytes(content)

    def numbers_into(self, field: Field, out: np.ndarray) -> int:
        """Write the little-endian numbers of a packed field or of a run into the front of `out`; their count."""
        width = out.itemsize
        if field.wire == LENGTH:
            count = (field.end - field.start) // width
            self._read_into(field.start, out[:count].data.cast("B"))
            return count
        record = np.dtype([("tag", np.uint8, field.start - field.offset), ("value", out.dtype)])
        out[: field.repeats] = np.frombuffer(self.data(field.offset, field.end), record)["value"]
        return field.repeats

    def _field(self, offset: int, end: int, message: str) -> Field:
        tag, start = self._varint(offset, end, f"{message}, a field's tag")
        number, wire = tag >> 3, tag & 7
        name = f"{message}, field {number}"
        if not 0 < number < 1 << 29:
            raise WireError(offset, name, "there is no such field number in protobuf")
        if wire == VARINT:
            value, after = self._varint(start, end, name)
            return Field(number, wire, offset, start, after, value)
        if wire == LENGTH:
            length, start = self._varint(start, end, name)
            self._check_room(offset, start, length, end, name)
            return Field(number, wire, offset, start, start + length)
        if wire not in WIDTHS:
            raise WireError(offset, name, f"wire type {wire} does not occur in these files")
        self._check_room(offset, start, WIDTHS[wire], end, name)
        record = start - offset + WIDTHS[wire]
        repeats = self._run(offset, end, record) if start - offset == 1 else 1
        return Field(number, wire, offset, start, offset + repeats * record, repeats=repeats)

    @staticmethod
    def _check_room(offset: int, start: int, length: int, end: int, name: str) -> None:
        if length > end - start:
            raise WireError(offset, name, f"{length} bytes declared where {end - start} are left")

    def _run(self, offset: int, end: int, record: int) -> int:
        """How many records with the same one-byte tag follow one another. Reads at most about twice their bytes."""
        first = self.data(offset, offset + 1)[0]
        count, step = 0, 16
        while count < _LONGEST_RUN:
            step = min(step, (end - offset) // record - count)
            if step == 0:
                break
            content = self.data(offset + count * record, offset + (count + step) * record)
            tags = np.frombuffer(content, np.uint8)[::record]
            if not (tags == first).all():
                return count + int((tags == first).argmin())
            count, step = count + step, 2 * step
        return count

    def _varint(self, offset: int, end: int, name: str) -> tuple[int, int]:
        """The value at `offset`, modulo 2**64, and the byte after it."""
        value = 0
        content = self.data(offset, min(end, offset + _LONGEST_VARINT))
        for index, byte in enumerate(content):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, offset + index + 1
        problem = "a varint of more than ten bytes" if len(content) == _LONGEST_VARINT else "ends in a varint"
        raise WireError(offset, name, problem)

    def _read_into(self, start: int, out: memoryview) -> None:
        self._file.seek(start)
        filled = 0
        while filled < len(out):
            count = self._file.readinto(out[filled:])
            if not count:
                raise WireError(start + filled, "end of file", "the file became shorter while it was read")
            filled += count
