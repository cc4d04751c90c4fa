"""The machine code of the CUDA kernels, with no GPU: ``python -m benchmarks.compiled_cuda [--only TEXT] [--write]``.

It needs nvcc and the C++ compiler's c++filt, and the disassembler that comes with Triton.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks import cuda_specimens
from benchmarks.compiled_cuda_table import CodeRow, WorkRow, as_json, as_markdown
from benchmarks.compiled_table import Row
from benchmarks.cubins import CudaKernel, compile_kernels
from benchmarks.machine_code import issued
from benchmarks.occupancy import resident_warps
from benchmarks.specimen import ARCHS, TABLE_ARCH, CudaSpecimen

RESULTS = Path(__file__).parent / "results" / "compiled_cuda"
WORKERS = 2

Job = tuple[str, int]
"""An operation, and ten times a compute capability."""


class Examined(NamedTuple):
    """What came of the file of an operation for one architecture.

    Args:
        code: a row for each instantiation of a kernel.
        work: a row for each specimen; for `TABLE_ARCH` alone.
        failures: what contradicts the claims.
        explained: the loops and the blocks that issue most, of each specimen.
    """

    code: list[CodeRow]
    work: list[WorkRow]
    failures: list[str]
    explained: list[str]


def operations() -> list[str]:
    """The operations, each of which is a file of csrc/cuda and a module of specimens."""
    return [module.name for module in pkgutil.iter_modules(cuda_specimens.__path__)]


def load(operation: str) -> list[CudaSpecimen]:
    """The specimens of an operation."""
    found: list[CudaSpecimen] = importlib.import_module(f"{cuda_specimens.__name__}.{operation}").SPECIMENS
    return found


def examine(job: Job) -> Examined:
    """Compiles the file of an operation and counts."""
    operation, arch = job
    kernels = compile_kernels(operation, arch)
    specimens = load(operation)
    shared = {specimen.kernel: specimen.shared for specimen in specimens}
    found = Examined([], [], [], [])
    for name, kernel in sorted(kernels.items()):
        facts = kernel.facts()
        warps = resident_warps(arch, facts.registers, facts.threads, facts.shared + shared.get(name, 0))
        found.code.append(CodeRow(operation, name, arch, facts._asdict(), warps))
        found.failures.extend(f"{name}, sm_{arch}: {failure}" for failure in kernel.failures())
    for specimen in specimens if arch == TABLE_ARCH else ():
        _count(operation, specimen, kernels[specimen.kernel], found)
    return found


def _count(operation: str, specimen: CudaSpecimen, compiled: CudaKernel, found: Examined) -> None:
    """Adds the work of a specimen."""
    kernel, facts = compiled.kernel, compiled.facts()
    threads = specimen.threads or facts.threads
    try:
        frequencies = kernel.frequencies(kernel.trips_by_source(specimen.trips), specimen.shares)
    except ValueError as error:
        found.failures.append(f"{operation}: {specimen.name}: {error}")
        found.explained.extend([specimen.name, *kernel.describe_loops()])
        return
    counted = issued(kernel, frequencies, specimen.blocks * (threads // 32))
    row = Row(operation, specimen.name, TABLE_ARCH, facts._asdict(), counted._asdict(), specimen.case)
    warps = resident_warps(TABLE_ARCH, facts.registers, threads, facts.shared + specimen.shared)
    found.work.append(WorkRow(row, specimen.kernel, warps, tuple(specimen.triton)))
    found.failures.extend(f"{operation}: {specimen.name}: {s}" for s in compiled.broken_claims(specimen))
    per_unit = f"{row.per_unit('total'):.4g} instructions per {specimen.case.unit}"
    loops, blocks = kernel.describe_loops(), kernel.describe_blocks(frequencies)
    found.explained.extend([f"{specimen.name}: {per_unit}", *loops, "run in a warp × instructions:", *blocks])


def examine_all(jobs: Sequence[Job]) -> Iterator[Examined]:
    """Compiles the files, in order."""
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(examine, jobs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled_cuda", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only operations with TEXT in their names")
    parser.add_argument("--arch", type=int, action="append", choices=ARCHS, help="default: all")
    parser.add_argument(
        "--explain", action="store_true", help="list the loops and the busiest code of the specimens"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write {RESULTS.name}.json and {RESULTS.name}.md"
    )
    options = parser.parse_args()
    if options.write and (options.only or options.arch):
        parser.error("--write writes the whole table: not with --only or --arch")
    chosen = [operation for operation in operations() if options.only in operation]
    code, work, failures = [], [], []
    for found in examine_all([(operation, arch) for operation in chosen for arch in options.arch or ARCHS]):
        code += found.code
        work += found.work
        failures += found.failures
        if options.explain:
            print("\n".join(found.explained), flush=True)
    text = as_markdown(code, work)
    print("\n" + text)
    if failures:
        sys.exit("\n".join([*failures, "the machine code is not what was claimed; nothing was written"]))
    if options.write:
        RESULTS.with_suffix(".json").write_text(as_json(code, work))
        RESULTS.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
