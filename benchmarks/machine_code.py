"""Compiles specimens for NVIDIA GPUs, with no GPU, and looks at the machine code."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import triton

from benchmarks.launches import compile_launch
from benchmarks.sass import Kernel
from benchmarks.specimen import Claims, Specimen

_OPERATION = re.compile(r"^\s*(%\w+)(?::\d+)? = ([\w.]+) (.*?)(?: loc\(.*)?$", re.MULTILINE)
_SAME_VALUE = ("arith.extsi", "arith.extui", "tt.splat", "tt.broadcast", "tt.expand_dims")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Facts(NamedTuple):
    """What the machine code of a specimen is for one architecture.

    Args:
        programs: of the launch.
        warps: of a program.
        registers: of a thread.
        shared: bytes of shared memory of a program.
        local: bytes of local memory of a thread, its stack included.
        spills: loads from and stores to local memory.
        instructions: all that can run.
        loops: how many.
        loads: how many loads from global memory have each width in bits (1024: a bulk copy).
    """

    programs: int
    warps: int
    registers: int
    shared: int
    local: int
    spills: int
    instructions: int
    loops: int
    loads: dict[str, int]


class Issued(NamedTuple):
    """Instructions that the warps of a launch issue: ``mufu`` of them to the special-function unit."""

    total: float
    mufu: float


class Compiled(NamedTuple):
    """A compiled specimen."""

    kernel: Kernel
    ttir: str
    registers: int
    shared: int
    local: int
    warps: int
    programs: int


def compile_specimen(specimen: Specimen, arch: int) -> Compiled:
    """Compiles what the specimen launches for compute capability ``arch`` / 10, and disassembles it.

    Raises:
        RuntimeError: where it does not compile, or Triton's cache has it from a checkout that is gone.
    """
    compiled, programs = compile_launch(specimen.launch, specimen.kernel, arch)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        kernel = Kernel(run_tool("nvdisasm", "-c", "-g", str(cubin)))
        usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", run_tool("cuobjdump", "-res-usage", str(cubin))))
    if gone := {i.file for i in kernel.instructions if i.file and not Path(i.file).exists()}:
        raise RuntimeError(
            f"Triton's cache has code of {gone.pop()}, which is gone: set TRITON_CACHE_DIR anew"
        )
    return Compiled(
        kernel,
        compiled.asm["ttir"],
        registers=int(usage["REG"]),
        shared=compiled.metadata.shared,
        local=int(usage["STACK"]) + int(usage["LOCAL"]),
        warps=compiled.metadata.num_warps,
        programs=programs,
    )


def run_tool(tool: str, *arguments: str) -> str:
    """What one of the tools in Triton's wheel prints."""
    command = [str(TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def facts(compiled: Compiled) -> Facts:
    """Counts what stands in the machine code."""
    kernel = compiled.kernel
    code = kernel.code(kernel.reached)
    return Facts(
        programs=compiled.programs,
        warps=compiled.warps,
        registers=compiled.registers,
        shared=compiled.shared,
        local=compiled.local,
        spills=sum(instruction.is_local for instruction in kernel.instructions),
        instructions=len(code),
        loops=len(kernel.loops),
        loads=widths(instruction.load_bits for instruction in code),
    )


def widths(bits: Iterable[int]) -> dict[str, int]:
    """How many accesses to memory have each width."""
    counts = Counter(width for width in bits if width)
    return {str(width): counts[width] for width in sorted(counts)}


def issued(kernel: Kernel, frequencies: Mapping[int, float], warps: float) -> Issued:
    """Counts what a launch of so many warps issues, each block of the kernel running so often in a warp."""
    total, mufu = 0.0, 0.0
    for block, often in frequencies.items():
        code = kernel.code([block])
        total += often * len(code)
        mufu += often * sum(instruction.name == "MUFU" for instruction in code)
    return Issued(total * warps, mufu * warps)


def failures(compiled: Compiled, claims: Claims) -> Iterator[str]:
    """What in the machine code contradicts the claims, or what must hold always."""
    code = compiled.kernel.instructions
    if any(instruction.is_local for instruction in code) or compiled.local:
        count = sum(instruction.is_local for instruction in code)
        yield f"{count} spills, {compiled.local} bytes of local memory"
    if atomics := sorted({i.opcode for i in code if i.is_float_atomic}):
        yield f"float atomics: {', '.join(atomics)}"
    if compiled.registers > claims.max_registers:
        yield f"{compiled.registers} registers, more than {claims.max_registers}"
    if claims.tensor_cores and not any(i.is_matrix_product for i in code):
        yield "no matrix product on the tensor cores"
    for part, least in claims.loads.items():
        widths = {i.load_bits for i in code if i.load_bits and part in i.source}
        if min(widths, default=0) < least:
            yield f"loads of {part!r} have {', '.join(map(str, sorted(widths))) or 'no'} bits, not {least}"
    for name in claims.wide:
        yield from _narrow_products(compiled.ttir, name)


def _narrow_products(ttir: str, name: str) -> Iterator[str]:
    """The products of an argument that are formed in 32 bits, in which the offset of a large tensor overflows."""
    arguments = re.findall(rf'(%\w+): [^%]*?loc\("{name}"\(', ttir)  # a tuple's elements share its name
    if not arguments:
        yield f"wide: the kernel has no argument {name} that is not constant"
        return
    same, products = set(arguments), 0
    for result, operation, rest in _OPERATION.findall(
        ttir
    ):  # a name may stand for another value in another loop
        used = not same.isdisjoint(re.findall(r"%\w+", rest))
        (same.add if used and operation in _SAME_VALUE else same.discard)(result)
        if used and operation == "arith.muli":
            products += 1
            if not rest.endswith(("i64", "i64>")):
                yield f"{name} is multiplied in 32 bits: {rest}"
    if products == 0:
        yield f"wide: {name} is never multiplied"
