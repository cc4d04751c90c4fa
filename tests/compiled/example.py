"""A small kernel whose machine code is known, and faults planted in it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import triton
import triton.language as tl

from benchmarks.specimen import Case, Claims, Specimen

ROWS, COLUMNS, BLOCK = 4096, 4096, 512


@triton.jit
def _slow(total):
    return tl.exp2(total) * 3 + tl.sqrt(total)


@triton.jit
def _row_sums_kernel(x_ptr, y_ptr, stride, limit, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """One exponential and one 16-byte load of four elements for each element of a block of columns."""
    columns = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(ROWS):
        total += tl.exp2(tl.load(x_ptr + row.to(tl.int64) * stride + columns))
    if limit > 0:
        total = _slow(total)
    tl.store(y_ptr + columns, total)


@triton.jit
def _narrow_offsets_kernel(x_ptr, y_ptr, strides, BLOCK: tl.constexpr):
    """The offset of the image is formed in 64 bits, that of the row in 32."""
    columns = tl.arange(0, BLOCK)
    row = x_ptr + tl.program_id(1).to(tl.int64) * strides[0] + tl.program_id(0) * strides[1]
    tl.store(y_ptr + columns, tl.load(row + columns))


@triton.jit
def _atomic_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """Adds up in any order."""
    tl.atomic_add(y_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, BLOCK)), 0))


@triton.jit
def _count_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """Counts in any order, which changes nothing: integers."""
    tl.atomic_add(y_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, BLOCK)), 0).to(tl.int32))


@triton.jit
def _many_kernel(x_ptr, y_ptr):
    """Holds 128 numbers in the registers of each thread of one warp."""
    x = tl.load(x_ptr + tl.arange(0, 4096))
    tl.store(y_ptr + tl.arange(0, 4096), x - tl.max(x, 0))


@triton.jit
def _product_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """The square of a matrix."""
    place = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(x_ptr + place)
    tl.store(y_ptr + place, tl.dot(x, x))


def row_sums(shift: int = 0) -> None:
    """``shift``: elements from one that is aligned to 16 bytes."""
    x, y = torch.empty(ROWS, COLUMNS + shift).flatten()[shift:], torch.empty(COLUMNS)
    _row_sums_kernel[(COLUMNS // BLOCK,)](x, y, COLUMNS + shift, 0, ROWS, BLOCK)


def narrow_offsets() -> None:
    _narrow_offsets_kernel[(2,)](torch.empty(256), torch.empty(256), (256, 128), BLOCK=128)


def atomic() -> None:
    _atomic_kernel[(1,)](torch.empty(128), torch.empty(1), BLOCK=128)


def count() -> None:
    _count_kernel[(1,)](torch.empty(128), torch.empty(1, dtype=torch.int32), BLOCK=128)


def many(**options: int) -> None:
    _many_kernel[(1,)](torch.empty(4096), torch.empty(4096), num_warps=1, **options)


def product() -> None:
    count()
    _product_kernel[lambda meta: (1, meta["x_ptr"].ndim)](
        torch.empty(64, 64, dtype=torch.bfloat16), torch.empty(64, 64), BLOCK=64
    )


ELEMENTS = Case("elements", unit="element", units=ROWS * COLUMNS, bytes=4 * ROWS * COLUMNS)
NOTHING = Case("", unit="element", units=1, bytes=0)
ROW_SUMS = Specimen(
    "row sums",
    row_sums,
    "_row_sums_kernel",
    ELEMENTS,
    trips={80: (ROWS // 32,), 90: (ROWS // 32,), 100: (ROWS // 23,)},  # the assembler unrolls
    shares={"if limit > 0:": 0.0, "def _slow(": 0.0},
    claims=Claims(loads={"tl.load(x_ptr + row": 128}, wide=("stride",), max_registers=64),
)
NARROW = Specimen(
    "narrow load", partial(row_sums, shift=1), "_row_sums_kernel", ELEMENTS, (ROWS // 16,),
    claims=Claims(loads={"tl.load(x_ptr + row": 128}),
)  # fmt: skip
OFFSETS = Specimen(
    "narrow offset", narrow_offsets, "_narrow_offsets_kernel", NOTHING, claims=Claims(wide=("strides",))
)
SPILL = Specimen("spill", partial(many, maxnreg=64), "_many_kernel", NOTHING)
REGISTERS = Specimen("registers", many, "_many_kernel", NOTHING, claims=Claims(max_registers=80))
COUNT = Specimen("count", count, "_count_kernel", NOTHING)
PRODUCT = Specimen("product", product, "_product_kernel", NOTHING, claims=Claims(tensor_cores=True))

SOUND = [ROW_SUMS, COUNT, PRODUCT]
FAULTS = {
    "bits, not 128": NARROW,
    "have no bits": replace(COUNT, claims=Claims(loads={"x_ptr[": 128})),
    "strides is multiplied in 32 bits": OFFSETS,
    "no argument pitch": replace(COUNT, claims=Claims(wide=("pitch",))),
    "limit is never multiplied": replace(ROW_SUMS, claims=Claims(wide=("limit",))),
    "float atomics": Specimen("atomic", atomic, "_atomic_kernel", NOTHING),
    "spills": SPILL,
    "registers, more than 80": REGISTERS,
    "no matrix product": replace(COUNT, claims=Claims(tensor_cores=True)),
    "1 trip counts for 0 loops": replace(COUNT, trips=(3,)),
    "no statement": replace(
        COUNT, shares={"if " + "nowhere:": 0.5}
    ),  # not the text itself, or it would stand here
}
"""For a part of what must be said about it, a specimen that is not what it claims to be."""
SPECIMENS = [*SOUND, *FAULTS.values()]
