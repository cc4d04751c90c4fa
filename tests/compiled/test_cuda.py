"""The machine code of the CUDA kernels: installed, in the committed table, and compiled anew."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fcnkern
from benchmarks.compiled_cuda import RESULTS, Examined, examine_all, load, operations
from benchmarks.compiled_cuda_table import CodeRow, WorkRow, as_markdown, attention
from benchmarks.compiled_table import Row
from benchmarks.cubins import CudaKernel, find_nvcc, nvcc_release, resource_usage
from benchmarks.machine_code import TOOLS
from benchmarks.occupancy import resident_warps
from benchmarks.sass import Kernel
from benchmarks.specimen import ARCHS, TABLE_ARCH, Case, CudaSpecimen

COMPILED = ("confusion_matrix", "conv1x1", "upsample_argmax")
"""The operations whose files compile soon enough for a test."""


def extension() -> Path:
    """The installed extension."""
    built = sorted(Path(fcnkern.__file__).parent.glob("_C_cuda*"))
    if not built:
        pytest.skip("this installation was built without nvcc")
    return built[0]


def dump(*options: str) -> str:
    """What cuobjdump says of the installed extension."""
    path = os.pathsep.join([str(TOOLS), os.environ["PATH"]])  # of nvdisasm
    command = [str(TOOLS / "cuobjdump"), *options, str(extension())]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    ).stdout


def table() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.with_suffix(".json").read_text())
    return results


def skip_another(release: str) -> None:
    written = table()["circumstances"]["nvcc"]
    if release != written:
        pytest.skip(f"the table is of nvcc {written}, this is {release}")


def installed(arch: int) -> dict[str, dict[str, int]]:
    """What each kernel of the installed extension uses."""
    if shutil.which("c++filt") is None:
        pytest.skip("needs c++filt")
    usage = resource_usage(dump("-arch", f"sm_{arch}", "-res-usage"), arch)
    if not usage:
        pytest.skip(f"not built for sm_{arch}")
    return usage


@pytest.mark.parametrize("arch", ARCHS)
def test_registers_are_not_spilled(arch: int) -> None:
    usage = installed(arch)
    assert len(usage) > 20
    assert [name for name, used in usage.items() if used["STACK"] or used["LOCAL"]] == []
    assert max(used["REG"] for used in usage.values()) <= 255


@pytest.mark.parametrize("arch", ARCHS)
def test_committed_table_is_of_the_installed_kernels(arch: int) -> None:
    release = re.search(rb"nvcc (\d+\.\d+)", extension().read_bytes())
    skip_another(release[1].decode() if release else "")
    rows = {row["kernel"]: row["facts"] for row in table()["rows"] if row["arch"] == arch}
    usage = {name: used for name, used in installed(arch).items() if name != "probe_kernel"}
    then = {name: (facts["registers"], facts["shared"], facts["local"]) for name, facts in rows.items()}
    now = {name: (used["REG"], used["SHARED"], used["STACK"] + used["LOCAL"]) for name, used in usage.items()}
    assert now == then, "python -m benchmarks.compiled_cuda --write"


def test_nothing_adds_floats_atomically() -> None:
    code = dump("-arch", "sm_90", "-sass")
    if "Function" not in code:
        pytest.skip("not built for sm_90")
    assert re.search(r"\bLDG\.E\.128", code)
    assert re.search(r"\bSTG\.E\.128", code)
    assert re.findall(r"\b(?:RED|ATOMG?|ATOMS)\.[\w.]*F(?:16|32|64)[\w.]*", code) == []


@pytest.fixture(scope="module")
def found() -> dict[str, Examined]:
    """Some operations, compiled with the lines of their source."""
    if find_nvcc() is None or shutil.which("c++filt") is None:
        pytest.skip("needs nvcc and c++filt")
    return dict(zip(COMPILED, examine_all([(name, TABLE_ARCH) for name in COMPILED]), strict=True))


def test_machine_code_is_what_the_specimens_claim(found: dict[str, Examined]) -> None:
    """No spill; no float atomic: the one compare-and-swap is `LabelReport.tell`'s, on an integer; 128 bits at once
    where features are copied, labels loaded and stored; tensor cores.
    """
    assert [failure for examined in found.values() for failure in examined.failures] == []
    specimens = [specimen for name in found for specimen in load(name)]
    assert sum(bool(specimen.widths) for specimen in specimens) >= 4
    assert any(specimen.tensor_cores for specimen in specimens)


def test_committed_table_is_of_this_source(found: dict[str, Examined]) -> None:
    skip_another(nvcc_release())
    then = {row["kernel"]: row for row in table()["rows"] if row["arch"] == TABLE_ARCH}
    for row in (row for examined in found.values() for row in examined.code):
        assert row._asdict() == then[row.kernel], "python -m benchmarks.compiled_cuda --write"
    work = {(each["operation"], each["name"]): each["issued"] for each in table()["work"]}
    for each in (each for examined in found.values() for each in examined.work):
        issued = work[each.row.operation, each.row.name]
        assert each.row.issued == pytest.approx(issued), "python -m benchmarks.compiled_cuda --write"


def test_committed_table_has_every_specimen_and_no_spill() -> None:
    named = {(operation, specimen.name) for operation in operations() for specimen in load(operation)}
    assert {(each["operation"], each["name"]) for each in table()["work"]} == named
    rows = table()["rows"]
    assert {row["arch"] for row in rows} == set(ARCHS)
    assert [row["kernel"] for row in rows if row["facts"]["spills"] or row["facts"]["local"]] == []


def test_planted_faults_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "kernel.cuh"
    source.write_text("return swap(at);\nat[0] = load();\n")
    inlined = (
        f'\t//## File "{source}", line 1 inlined at "{source}", line 2\n\t//## File "{source}", line 2\n'
    )
    lines = [
        "LDG.E.64 R0, [R2.64]",
        "ATOMG.E.CAS.64.STRONG.GPU PT, R6, [R6], R8, R10",
        "STL [R1], R0",
        "EXIT",
    ]
    code = "".join(f"        /*{16 * n:04x}*/  {line} ;\n" for n, line in enumerate(lines))
    usage = {"REG": 8, "STACK": 8, "SHARED": 0, "LOCAL": 0}
    kernel = CudaKernel(Kernel(inlined + code), 32, usage)
    assert list(kernel.failures()) == [
        "1 spills, 8 bytes of local memory",
        "float atomic ATOMG.E.CAS.64.STRONG.GPU: return swap(at);",
    ]
    claims = {"at[0] = load()": 128, "nowhere": 32}
    specimen = CudaSpecimen("", "", Case("", "", 1, 1), 1, widths=claims, tensor_cores=True)
    assert list(kernel.broken_claims(specimen)) == [
        "no matrix product on the tensor cores",
        "accesses of 'at[0] = load()' have 64 bits, not 128",
        "accesses of 'nowhere' have no bits, not 32",
    ]


@pytest.mark.parametrize(
    ("arch", "registers", "threads", "shared", "warps"),
    [
        (90, 168, 32, 0, 12),  # three for each of four parts of the registers
        (90, 32, 256, 0, 64),
        (90, 33, 256, 0, 48),  # registers are given out by eight
        (90, 32, 32, 0, 32),  # no more blocks
        (80, 32, 128, 80 << 10, 8),  # shared memory, of which each block keeps 1 KB
        (90, 32, 128, 80 << 10, 8),
        (90, 32, 128, 75 << 10, 12),
    ],
)
def test_resident_warps(arch: int, registers: int, threads: int, shared: int, warps: int) -> None:
    assert resident_warps(arch, registers, threads, shared) == warps


def test_table_tells_what_issues_too_much() -> None:
    facts = {"registers": 40, "shared": 0, "spills": 0, "instructions": 9}
    case = Case("of none", unit="pixel", units=32, bytes=4.3e6)
    row = Row("conv1x1", "few", 90, facts, {"total": 132 * 4 * 1.8e3, "mufu": 0}, case)
    same = WorkRow(row, "k_kernel<float>", 48, ("label maps, uint8",))
    assert attention([same]) == []
    many = same._replace(row=row._replace(issued={"total": 132 * 4 * 1.8e3 * 40, "mufu": 0}))
    assert "issue takes 40 times" in attention([many])[0]
    kinds = ("float", "__nv_bfloat16", "__half")
    code = [CodeRow("conv1x1", f"k_kernel<{kind}>", 90, facts | {"registers": 50}, 40) for kind in kinds]
    text = as_markdown(code, [many])
    assert "| `k_kernel<float>` | 90 | 50 | 50 |" in text
    assert "__half" not in text
