"""The machine code of the Triton kernels, with no GPU: ``python -m benchmarks.compiled [--only TEXT] [--write]``."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from benchmarks import specimens
from benchmarks.compiled_table import Row, as_json, as_markdown
from benchmarks.specimen import ARCHS, Specimen

RESULTS = Path(__file__).parent / "results" / "compiled"
WORKERS = 2  # compiling keeps a core busy and takes 1 GB


class Job(NamedTuple):
    """Specimen ``number`` of the list ``SPECIMENS`` of ``module`` to compile, for ten times a compute capability."""

    module: str
    number: int
    arch: int


class Found(NamedTuple):
    """What came of a job.

    Args:
        row: of the table.
        failures: what contradicts the claims, which are made for the architectures that are tested.
        miscounted: why the instructions issued could not be counted, "" where they were.
        loops: a description of each.
        seconds: that compiling took, next to nothing where Triton had it in its cache.
    """

    row: Row
    failures: list[str]
    miscounted: str
    loops: list[str]
    seconds: float


def modules() -> list[str]:
    """The modules of specimens, one for each operation."""
    return [f"{specimens.__name__}.{module.name}" for module in pkgutil.iter_modules(specimens.__path__)]


def load(module: str) -> list[Specimen]:
    """The specimens of a module."""
    found: list[Specimen] = importlib.import_module(module).SPECIMENS
    return found


def examine(job: Job) -> Found:
    """Compiles one specimen, in a process where kernels are not run as Python."""
    from benchmarks import machine_code

    module, number, arch = job
    specimen = load(module)[number]
    start = perf_counter()
    compiled = machine_code.compile_specimen(specimen, arch)
    seconds = perf_counter() - start
    issued, miscounted = None, ""
    try:
        kernel = compiled.kernel
        frequencies = kernel.frequencies(specimen.trips_on(arch), specimen.shares)
        issued = machine_code.issued(kernel, frequencies, compiled.programs * compiled.warps)
    except ValueError as error:
        miscounted = str(error)
    facts = machine_code.facts(compiled)._asdict()
    counted = None if issued is None else issued._asdict()
    return Found(
        Row(module.split(".")[-1], specimen.name, arch, facts, counted, specimen.case),
        list(machine_code.failures(compiled, specimen.claims)) if arch in specimen.archs else [],
        miscounted,
        compiled.kernel.describe_loops(),
        seconds,
    )


def examine_all(jobs: Sequence[Job]) -> Iterator[Found]:
    """Compiles the specimens in worker processes, in order."""
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), _compile_kernels) as pool:
        yield from pool.map(examine, jobs)


def _compile_kernels() -> None:
    """Before a worker imports Triton: kernels are compiled, not run as Python."""
    os.environ.pop("TRITON_INTERPRET", None)


def _explain(found: Found) -> Iterator[str]:
    row = found.row
    yield f"{row.operation}: {row.name}, sm_{row.arch}, compiled in {found.seconds:.1f} s"
    yield "  " + ", ".join(f"{name} {value}" for name, value in row.facts.items())
    if row.issued is not None:
        yield f"  per {row.case.unit}: {row.per_unit('total'):.4g} instructions, {row.per_unit('mufu'):.4g} MUFU"
    yield from (f"  {line}" for line in (*found.failures, found.miscounted, *found.loops) if line)


def _jobs(text: str, archs: Iterable[int]) -> list[Job]:
    everything = [(module, index, s) for module in modules() for index, s in enumerate(load(module))]
    chosen = [each for each in everything if text in f"{each[0]}: {each[2].name}"]
    return [Job(module, index, arch) for module, index, s in chosen for arch in archs if arch in s.offered]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only what has TEXT in 'operation: name'")
    parser.add_argument("--arch", type=int, action="append", choices=ARCHS, help="default: all")
    parser.add_argument("--explain", action="store_true", help="list the loops, whose trips a specimen gives")
    parser.add_argument(
        "--write", action="store_true", help=f"write {RESULTS.name}.json and {RESULTS.name}.md"
    )
    options = parser.parse_args()
    if options.write and (options.only or options.arch):
        parser.error("--write writes the whole table: not with --only or --arch")
    jobs = _jobs(options.only, options.arch or ARCHS)
    rows, wrong = [], False
    for found in examine_all(jobs):
        rows.append(found.row)
        wrong |= bool(found.failures or found.miscounted)
        if options.explain or found.failures or found.miscounted:
            print("\n".join(_explain(found)), flush=True)
    print("\n" + as_markdown(rows))
    if wrong:
        sys.exit("the machine code is not what the specimens say; nothing was written")
    if options.write:
        RESULTS.with_suffix(".json").write_text(as_json(rows))
        RESULTS.with_suffix(".md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
