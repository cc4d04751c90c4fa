"""Peak extra memory of one call: the peak, less what was held before it and less the result.

On a GPU PyTorch's allocator tells. On the CPU (Linux) it is measured in a process of its own, which draws the inputs,
runs the call on a small shape (so that code is loaded and threads are running; compiled code on its own shape), takes
its resident size, resets the kernel's record of the peak, runs the call twice, and reads that record (VmHWM). Large
blocks go back to the system as soon as they are freed (MALLOC_MMAP_THRESHOLD_), so that none hides in a cache of the
allocator. These processes are forks of one that has done nothing but import PyTorch, which takes longer than to
measure.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import CASES, Case, Shape
from benchmarks.contenders import Contender, Result, build

RUNS = 2
RESET_PEAK = "5"  # proc(5), clear_refs
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def extra_bytes(case: Case, name: str, device: str, contender: Contender) -> int | None:
    """Peak extra memory of a contender; None where the system does not tell."""
    if device != "cpu":
        return _on_gpu(contender)
    return in_new_process(case, name)


def _on_gpu(contender: Contender) -> int:
    contender.run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = contender.run()
    torch.cuda.synchronize()
    return max(0, torch.cuda.max_memory_allocated() - before - _held(result))


def in_new_process(case: Case, name: str) -> int | None:
    """The same on the CPU, in a new process; None where the system does not tell."""
    return fork(_in_this_process, case.name, name)


def fork(measure: Callable[..., int], *args: Any) -> int | None:
    """What ``measure`` gives in a new process; None where the system does not tell a process's peak."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    _start_server()
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as new:
        return new.submit(measure, *args).result()


@cache
def _start_server() -> None:
    """Starts the process that is forked; what its allocator heeds must stand in the environment by then."""
    before = dict(os.environ)
    os.environ.update(ALLOCATOR | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    try:
        forkserver.set_forkserver_preload([__name__])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _held(result: Result) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in result)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return 1024 * int(value.split()[0])
    raise RuntimeError(f"/proc/self/status has no {field}")


def _small(case: Case) -> Case:
    """The same case at half the height."""
    classes, (h, w), (height, width) = case.shape
    return dataclasses.replace(case, shape=Shape(classes, (h // 2, w), (height // 2, width)))


def _in_this_process(case_name: str, name: str) -> int:
    case = next(case for case in CASES if case.name == case_name)
    run = build(case, [name])[name].run
    if name.startswith("compiled"):
        run()  # each shape is compiled anew, for longer than all else takes
    else:
        build(_small(case), [name])[name].run()
    peak, result = growth(run, RUNS)
    return max(0, peak - _held(result))


def growth(run: Callable[[], Any], times: int) -> tuple[int, Any]:
    """How far the resident size rises at most while ``run`` is called some times, and what the last call returns."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    for _ in range(times):
        result = run()
    return _status("VmHWM") - before, result
