"""Instructions of the C++ kernels per pixel, counted by callgrind: ``python -m benchmarks.instructions [--write]``.

Each case runs once, on one thread and at the AVX2 level (callgrind knows no AVX-512). What runs between a kernel's
entry and its return is counted, loads, stores and loops too. Beside it stand the vectors of products, comparisons
and exponentials that the operation needs at least (`benchmarks.bounds.work`): eight numbers to a vector, a product
(with a sum or without) or a comparison one instruction, an exponential ten. Counts are the same in each run, for the
same compiler.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from benchmarks.bounds import work
from benchmarks.cases import ADD, ARGMAX, CASES, CONFUSION, CONV, LOSS, POOL, Case
from benchmarks.report import ROOT, circumstances

OUT = ROOT / "benchmarks" / "results" / "instructions.md"
KERNELS = {
    LOSS: ("upsample_cross_entropy",),
    ARGMAX: ("upsample_argmax",),
    CONFUSION: ("confusion_of_labels", "confusion_of_scores"),
    ADD: ("upsample_add_forward",),
    CONV: ("conv1x1_forward",),
    POOL: ("max_pool2d_forward",),
}
"""The functions of csrc/cpu that an operation's forward pass enters."""
LANES, EXPONENTIAL = 8, 10
RUN = """
import sys
from benchmarks.cases import CASES
from benchmarks.contenders import build
build(next(case for case in CASES if case.name == sys.argv[1]), ["ours"])["ours"].run()
"""
COLLECTED = re.compile(r"Collected\s*:\s*(\d+)")


class Count(NamedTuple):
    """Instructions of one call, and the least of them, for each pixel of the result."""

    case: Case
    counted: float
    least: float


def counted_cases() -> list[Case]:
    """A few of each operation, without gradients but for the loss."""
    there = (case for case in CASES if case.operation in KERNELS and not (case.large or case.gradients))
    return [case for case in there if case.quick or case.operation == CONV]


def least(case: Case) -> float:
    """The instructions per pixel that products, comparisons and exponentials take."""
    need = work(case)
    return (need.flops / 2 + EXPONENTIAL * need.exponentials) / LANES / _pixels(case)


def count(case: Case) -> Count:
    """Runs a case under callgrind.

    Raises:
        RuntimeError: callgrind counted nothing.
    """
    toggles = [f"--toggle-collect=fcnkern::avx2::{name}(*)" for name in KERNELS[case.operation]]
    callgrind = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--collect-atstart=no",
        *toggles,
    ]
    # Callgrind counts `rep stosb`, by which memset fills large blocks, once for each byte.
    plain = {"OMP_NUM_THREADS": "1", "GLIBC_TUNABLES": "glibc.cpu.x86_rep_stosb_threshold=1000000000"}
    command = [*callgrind, sys.executable, "-c", RUN, case.name]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | plain, capture_output=True, text=True, check=False
    )
    total = COLLECTED.search(done.stderr)
    if done.returncode or total is None or total[1] == "0":
        raise RuntimeError(f"{case.name}: callgrind counted nothing: {done.stderr[-500:]}")
    return Count(case, int(total[1]) / _pixels(case), least(case))


def _pixels(case: Case) -> int:
    height, width = case.shape.out
    return case.images * height * width


def as_markdown(counts: list[Count]) -> Iterator[str]:
    """The table, under what it was made with."""
    facts = circumstances("python -m benchmarks.instructions --write")
    yield f"`{facts['command']}` at commit {facts['commit']}, {facts['date']}: AVX2, {facts['compiler']}.\n"
    yield f"Instructions for each pixel of the result; *least*: the products and comparisons, {LANES} to an"
    yield f"instruction, and the exponentials, {EXPONENTIAL} instructions for {LANES}, that the operation needs.\n"
    yield "| case | counted | least | part |"
    yield "|---|---:|---:|---:|"
    for case, counted, needed in counts:
        parts = [f"{needed:.3g}", f"{needed / counted:.2g}"] if needed else ["", ""]
        yield f"| {case.name} | {' | '.join([f'{counted:.3g}', *parts])} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {OUT.relative_to(ROOT)}")
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not in PATH")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        text = "".join(f"{line}\n" for line in as_markdown(list(pool.map(count, counted_cases()))))
    print(text, end="")
    if given.write:
        OUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
