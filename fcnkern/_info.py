"""What is installed, what it was built with, and which backends can run here."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy
import torch

from fcnkern import _native
from fcnkern._version import __version__
from fcnkern.backends.select import BACKENDS


def processor() -> str:
    """The processor's model name, or the architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def info() -> dict[str, Any]:
    """Versions, build metadata, instruction set, threads and backends, as plain data.

    Returns:
        A dictionary that ``json.dumps`` takes. ``build`` and ``build_cuda`` are None where ``fcnkern._C`` and
        ``fcnkern._C_cuda`` cannot be loaded; ``backends`` maps each name to ``{"available": bool, "reason":
        str | None}``, the reason saying why it is missing; ``environment`` holds the FCNKERN_* variables that are
        set.
    """
    return {
        "fcnkern": __version__,
        "location": str(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "system": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "build": None if _native.extension is None else dict(_native.extension.build_info()),
        "build_cuda": None if _native.cuda_extension is None else dict(_native.cuda_extension.build_info()),
        "backends": {
            name: {"available": reason is None, "reason": reason}
            for name, reason in ((backend.name, backend.missing()) for backend in BACKENDS)
        },
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith("FCNKERN_")},
    }


def _build_lines(build: dict[str, Any] | None) -> list[tuple[str, str]]:
    if build is None:
        return [("compiled part", "missing")]
    return [
        ("compiled part", f"{build['compiler']}, OpenMP {'yes' if build['openmp'] else 'no'}"),
        ("instruction set", build["isa"]),
        ("usable here", ", ".join(build["isas"])),
        ("built for", ", ".join(build["isas_built"])),
    ]


def _cuda_build_lines(build: dict[str, Any] | None) -> list[tuple[str, str]]:
    if build is None:
        return []
    return [("CUDA part", f"{build['compiler']}, for compute capabilities {build['archs']}")]


def format_info() -> str:
    """The same as :func:`info`, as lines for people."""
    facts = info()
    lines = [
        (key, str(facts[key]))
        for key in ("fcnkern", "location", "python", "torch", "numpy", "system", "processor", "threads")
    ]
    lines += _build_lines(facts["build"]) + _cuda_build_lines(facts["build_cuda"])
    for name, state in facts["backends"].items():
        verdict = "available" if state["available"] else f"missing: {state['reason']}"
        lines.append((f"backend {name}", verdict))
    lines += list(facts["environment"].items())
    width = max(len(key) for key, _ in lines)
    return "\n".join(f"{key:{width}}  {value}" for key, value in lines)
