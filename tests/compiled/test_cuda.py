"""The machine code of the CUDA kernels as this installation has them: nothing spilled, no float atomics."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fcnkern

ARCHS = ("sm_80", "sm_90", "sm_100")
SPILLING = {
    "upsample_cross_entropy_cells_kernel": 64,  # row-invariant pointers, outside the class loops
    "upsample_argmax_confidence_fwd_kernel": 64,  # on sm_100
}
"""Most bytes of local memory of the kernels that spill."""


def tool(name: str) -> str:
    """A tool of the CUDA toolkit, from Triton's wheel or from PATH."""
    triton = pytest.importorskip("triton")
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    found = str(bundled) if bundled.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def dump(*options: str) -> str:
    """What cuobjdump says of the installed extension."""
    built = sorted(Path(fcnkern.__file__).parent.glob("_C_cuda*"))
    if not built:
        pytest.skip("this installation was built without nvcc")
    cuobjdump = tool("cuobjdump")
    path = os.pathsep.join([str(Path(tool("nvdisasm")).parent), os.environ["PATH"]])
    command = [cuobjdump, *options, str(built[0])]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    ).stdout


@pytest.mark.parametrize("arch", ARCHS)
def test_registers_are_not_spilled(arch: str) -> None:
    usage = re.findall(
        r"Function (\S+):\s+REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", dump("-arch", arch, "-res-usage")
    )
    if not usage:
        pytest.skip(f"not built for {arch}")
    assert len(usage) > 20
    for name, registers, stack, local in usage:
        allowed = next((most for kernel, most in SPILLING.items() if kernel in name), 0)
        assert int(stack) + int(local) <= allowed, name
        assert int(registers) <= 255


def test_nothing_adds_floats_atomically() -> None:
    code = dump("-arch", "sm_90", "-sass")
    if "Function" not in code:
        pytest.skip("not built for sm_90")
    assert re.search(r"\bLDG\.E\.128", code)
    assert re.search(r"\bSTG\.E\.128", code)
    assert re.findall(r"\b(?:RED|ATOMG?|ATOMS)\.[\w.]*F(?:16|32|64)[\w.]*", code) == []
