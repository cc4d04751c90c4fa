"""Compiles csrc/cuda with nvcc, as setup.py does, and looks at the machine code of each kernel in it, with no GPU."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine_code import run_tool, widths
from benchmarks.sass import Instruction, Kernel
from benchmarks.specimen import CudaSpecimen

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "csrc" / "cuda"
FRONT_ENDS = (80, 100)
"""The virtual architectures from which setup.py makes the machine code of all."""
_RESERVED = 1 << 10  # of what cuobjdump calls shared memory, from compute capability 9.0 on

COMPARE_AND_SWAP = "if (atomicCAS(words + 2, 0ull, 1ull) != 0) return;"
"""The one compare-and-swap, `LabelReport::tell`'s: on an integer that says which thread reports a wrong label."""


class CudaFacts(NamedTuple):
    """What the machine code of a kernel is for one architecture.

    Args:
        threads: of a block, at most.
        registers: of a thread.
        shared: bytes of static shared memory of a block.
        local: bytes of local memory of a thread, its stack included.
        spills: loads from and stores to local memory.
        instructions: all that can run.
        loops: how many.
        loads: how many loads from global memory have each width in bits.
        stores: how many stores to global memory have.
        products: instructions of the tensor cores.
    """

    threads: int
    registers: int
    shared: int
    local: int
    spills: int
    instructions: int
    loops: int
    loads: dict[str, int]
    stores: dict[str, int]
    products: int


@dataclass(frozen=True)
class CudaKernel:
    """A compiled instantiation of a kernel.

    Args:
        kernel: its machine code.
        threads: of a block, at most.
        usage: what ``cuobjdump`` says it uses.
    """

    kernel: Kernel
    threads: int
    usage: dict[str, int]

    def facts(self) -> CudaFacts:
        """Counts what stands in the machine code."""
        kernel = self.kernel
        code = kernel.code(kernel.reached)
        return CudaFacts(
            threads=self.threads,
            registers=self.usage["REG"],
            shared=self.usage["SHARED"],
            local=self.usage["STACK"] + self.usage["LOCAL"],
            spills=sum(instruction.is_local for instruction in kernel.instructions),
            instructions=len(code),
            loops=len(kernel.loops),
            loads=widths(instruction.load_bits for instruction in code),
            stores=widths(instruction.store_bits for instruction in code),
            products=sum(instruction.is_matrix_product for instruction in code),
        )

    def failures(self) -> Iterator[str]:
        """What in the machine code contradicts what must hold always."""
        facts = self.facts()
        if facts.spills or facts.local:
            yield f"{facts.spills} spills, {facts.local} bytes of local memory"
        code = self.kernel.instructions
        atomics = (i for i in code if i.is_float_atomic and COMPARE_AND_SWAP not in i.sources)
        yield from sorted({f"float atomic {i.opcode}: {i.source}" for i in atomics})

    def broken_claims(self, specimen: CudaSpecimen) -> Iterator[str]:
        """What in the machine code contradicts the claims of a specimen."""
        code = self.kernel.instructions
        if specimen.tensor_cores and not any(i.is_matrix_product for i in code):
            yield "no matrix product on the tensor cores"
        for part, least in specimen.widths.items():
            found = {_bits(i) for i in code if _bits(i) and any(part in source for source in i.sources)}
            if min(found, default=0) < least:
                bits = ", ".join(map(str, sorted(found))) or "no"
                yield f"accesses of {part!r} have {bits} bits, not {least}"


def _bits(instruction: Instruction) -> int:
    return instruction.load_bits or instruction.store_bits


def find_nvcc() -> str | None:
    """The CUDA compiler that setup.py would take."""
    home = os.environ.get("CUDA_HOME")
    return (shutil.which("nvcc", path=str(Path(home) / "bin")) if home else None) or shutil.which("nvcc")


def nvcc_release() -> str:
    """The release of the CUDA compiler, "13.0"."""
    said = subprocess.run([str(find_nvcc()), "--version"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"release ([\d.]+)", said)[0]


def _build_flags() -> list[str]:
    """The flags of device code in setup.py, which cannot be imported."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "CUDA_FLAGS":
            flags: list[str] = ast.literal_eval(statement.value)
            return flags
    raise ValueError("setup.py has no CUDA_FLAGS")


BUILD_FLAGS = _build_flags()  # when imported: Python 3.11 cannot parse in several threads at once


def compile_kernels(operation: str, arch: int) -> dict[str, CudaKernel]:
    """Compiles the file of one operation for compute capability ``arch`` / 10; its kernels by their names.

    Raises:
        FileNotFoundError: without nvcc or the C++ compiler's c++filt.
        subprocess.CalledProcessError: where it does not compile.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise FileNotFoundError("needs nvcc, in CUDA_HOME/bin or in PATH")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        paths = [f"-I{ROOT / 'csrc' / 'include'}", str(SOURCES / f"{operation}.cu"), "-o", str(cubin)]
        front_end = max(base for base in FRONT_ENDS if base <= arch)
        flags = [*BUILD_FLAGS, "-lineinfo", "-cubin", f"-arch=compute_{front_end}", f"-code=sm_{arch}"]
        subprocess.run([nvcc, *flags, *paths], check=True)
        return read_cubin(cubin, arch)


def read_cubin(cubin: Path, arch: int) -> dict[str, CudaKernel]:
    """The kernels of a cubin by their names."""
    _, *parts = re.split(
        r"^\t\.section\t\.text\.(\S+?),.*$", run_tool("nvdisasm", "-c", "-gi", str(cubin)), flags=re.M
    )
    code = dict(zip(parts[::2], parts[1::2], strict=True))
    _, *parts = re.split(r"^\.nv\.info\.(\S+)$", run_tool("cuobjdump", "-elf", str(cubin)), flags=re.M)
    infos = dict(zip(parts[::2], parts[1::2], strict=True))
    usages = resource_usage(run_tool("cuobjdump", "-res-usage", str(cubin)), arch)
    threads = {
        name: re.search(r"EIATTR_MAX_THREADS\s+Format:\s+\S+\s+Value:\s+(0x\w+)", infos[name])
        for name in code
    }
    names = demangled(list(code))
    return {
        names[name]: CudaKernel(Kernel(text), int(limit[1], 16), usages[names[name]])
        for name, text in code.items()
        if (limit := threads[name])
    }


def resource_usage(text: str, arch: int) -> dict[str, dict[str, int]]:
    """Registers, stack, shared and local memory of each kernel, from what ``cuobjdump -res-usage`` prints."""
    found = re.findall(r"Function (\S+):\s+(REG:.*)", text)
    names = demangled([name for name, _ in found])
    result = {}
    for name, line in found:
        usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", line)}
        usage["SHARED"] = max(usage["SHARED"] - (_RESERVED if arch >= 90 else 0), 0)
        result[names[name]] = usage
    return result


def demangled(names: list[str]) -> dict[str, str]:
    """For each name in the machine code, that of the kernel with its template arguments."""
    said = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout
    return {name: _short(full) for name, full in zip(names, said.splitlines(), strict=True)}


def _short(name: str) -> str:
    bare = re.sub(r"^void |fcnkern::cuda::|\(anonymous namespace\)::", "", name)
    return bare.partition("(")[0]
