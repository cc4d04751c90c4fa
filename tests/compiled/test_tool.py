"""The tool that looks at machine code: it counts a known kernel right, and it sees planted faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.compiled import Found, Job, examine_all
from benchmarks.compiled_table import Row, as_markdown
from benchmarks.sass import Instruction, Kernel
from benchmarks.specimen import ARCHS, Case
from tests.compiled import example


@pytest.fixture(scope="module")
def found(cold_cache: Path) -> list[Found]:
    """The sound specimens for every architecture, then the faulty ones."""
    archs = [ARCHS if specimen in example.SOUND else (90,) for specimen in example.SPECIMENS]
    return list(
        examine_all([Job(example.__name__, i, arch) for i, some in enumerate(archs) for arch in some])
    )


@pytest.fixture(scope="module")
def sound(found: list[Found]) -> list[Found]:
    return found[: -len(example.FAULTS)]


@pytest.fixture(scope="module")
def faulty(found: list[Found]) -> dict[str, Found]:
    return dict(zip(example.FAULTS, found[-len(example.FAULTS) :], strict=True))


def test_sound_kernels_are_not_blamed(sound: list[Found]) -> None:
    assert [
        (f.row.name, f.row.arch, f.failures, f.miscounted) for f in sound if f.failures or f.miscounted
    ] == []


@pytest.mark.parametrize("index", range(len(ARCHS)), ids=lambda index: f"sm_{ARCHS[index]}")
def test_every_instruction_of_a_known_loop_is_counted_as_often_as_it_runs(
    sound: list[Found], index: int
) -> None:
    row = sound[index].row
    assert row.issued is not None
    assert row.per_unit("mufu") == 1  # the assembler unrolls the loop; the branch that is not taken has more
    assert (
        1 + 1 + 1 / 4 - 1 / 2 < row.per_unit("total") < 3
    )  # exponential, addition (one for two), a load for four
    assert " MUFU" in sound[index].loops[0]
    assert "from example.py:" in sound[index].loops[0]
    assert list(row.facts["loads"]) == ["128"]
    assert (row.facts["spills"], row.facts["local"], row.facts["shared"], row.facts["loops"]) == (0, 0, 0, 1)


@pytest.mark.parametrize("said", example.FAULTS)
def test_planted_fault_is_seen(faulty: dict[str, Found], said: str) -> None:
    found = faulty[said]
    assert any(said in line for line in (*found.failures, found.miscounted)), found
    assert len([*found.failures, found.miscounted]) == 2 - bool(found.miscounted), "blamed for something else"


def _kernel(*lines: str) -> Kernel:
    rows = [
        line if line.endswith(":") else f"        /*{16 * n:04x}*/  {line} ;" for n, line in enumerate(lines)
    ]
    return Kernel("\n".join(rows))


def _counts(kernel: Kernel, trips: Sequence[float]) -> dict[str, float]:
    return {
        instruction.name: often
        for block, often in kernel.frequencies(trips, {}).items()
        for instruction in kernel.code([block])
    }


def test_inner_loops_multiply_and_what_is_left_out_does_not() -> None:
    kernel = _kernel(
        "MOV R0, RZ",
        ".L_x_0:",
        "FADD R0, R0, R1",
        ".L_x_1:",
        "FMUL R0, R0, R1",
        "@P0 BRA `(.L_x_1)",
        "BRA.U UP0, `(.L_x_0)",
        "@P1 EXIT",
        "@P2 CALL.REL.NOINC `($__internal_0_$__slowpath)",
        "STG.E [R2.64], R0",
        "EXIT",
        "RET.REL.NODEC R4 `(k)",
    )
    counts = _counts(kernel, (3, 5))
    assert counts["MOV"] == counts["STG"] == 1
    assert (counts["FADD"], counts["FMUL"]) == (3, 15)
    assert "RET" not in counts
    with pytest.raises(ValueError, match="1 trip counts for 2 loops"):
        kernel.frequencies((3,), {})


def test_branch_back_from_code_moved_out_of_line_is_no_loop() -> None:
    kernel = _kernel(
        "@P0 BRA `(.L_x_1)",
        ".L_x_0:",
        "FADD R0, R0, R1",
        "EXIT",
        ".L_x_1:",
        "FMUL R0, R0, R1",
        "BRA `(.L_x_0)",
    )
    assert kernel.loops == []
    assert _counts(kernel, ())["FMUL"] == 1


def test_jump_by_a_table_reaches_all_its_targets() -> None:
    kernel = _kernel(
        'BRX R2 -0x10 (*"BRANCH_TARGETS .L_x_0,.L_x_1"*)', ".L_x_0:", "FADD R0, R0, R1", "EXIT",
        ".L_x_1:", "FMUL R0, R0, R1", "EXIT", "FFMA R0, R0, R0, R0",
    )  # fmt: skip
    assert _counts(kernel, ()) == {"BRX": 1, "FADD": 1, "EXIT": 1, "FMUL": 1}


def test_source_tells_loops_and_inlined_bodies(tmp_path: Path) -> None:
    source = tmp_path / "kernel.cuh"
    source.write_text(
        "float twice(float x) { return x + x; }\n"
        "for (int i = 0; i < 4; ++i)\n"
        "  x *= x;\n"
        "if (rare)\n"
        "  x = twice(x);\n"
        "if (never) x = 0;\n"
        "x = x * x + x;\n"
    )
    rows = [
        ".L_x_0:", 3, "FMUL R0, R0, R0", 2, "@P0 BRA `(.L_x_0)", 4, "@P1 BRA `(.L_x_1)", (1, 5), "FADD R0, R0, R0",
        ".L_x_1:", 6, "@P2 BRA `(.L_x_2)", 6, "MOV R0, RZ", ".L_x_2:", 7, "FFMA R0, R0, R0, R0", "EXIT",
    ]  # fmt: skip
    lines = []
    for n, row in enumerate(rows):
        if isinstance(row, str):
            lines.append(row if row.endswith(":") else f"        /*{16 * n:04x}*/  {row} ;")
        elif isinstance(row, int):
            lines.append(f'\t//## File "{source}", line {row}')
        else:
            lines += [f'\t//## File "{source}", line {row[0]} inlined at "{source}", line {row[1]}']
            lines += [f'\t//## File "{source}", line {row[1]}']
    kernel = Kernel("\n".join(lines))
    assert [loop.sources for loop in kernel.loops] == [("for (int i = 0; i < 4; ++i)",)]
    assert kernel.trips_by_source({"i < 4": 4}) == [4]
    assert kernel.trips_by_source({"i < 4": (4,)}) == [4]
    counts = {
        instruction.name: often
        for block, often in kernel.frequencies([4], {"if (rare)": 0.25, "if (never) x = 0;": 0.0}).items()
        for instruction in kernel.code([block])
    }
    assert (counts["FMUL"], counts["FADD"], counts["FFMA"]) == (4, 0.25, 1)
    assert counts["MOV"] == 0
    for wrong in ({}, {"i < 4": ()}, {"i < 4": (4, 4)}, {"i < 4": 4, "int i": 4}):
        with pytest.raises(ValueError, match="trips"):
            kernel.trips_by_source(wrong)
    assert "4 × 2" in kernel.describe_blocks(kernel.frequencies([4], {}))[0]


def test_loop_left_by_a_call_and_a_second_predicate() -> None:
    kernel = _kernel(
        ".L_x_0:", "FADD R0, R0, R1", "@!P0 CALL.REL.NOINC `(.L_x_1)", "BRA `(.L_x_0)", ".L_x_1:",
        "@P0 BRA P1, `(.L_x_2)", "FMUL R0, R0, R1", ".L_x_2:", "STG.E [R2.64], R0", "EXIT",
    )  # fmt: skip
    counts = _counts(kernel, (7,))
    assert (counts["FADD"], counts["FMUL"], counts["STG"]) == (7, 1, 1)


def test_waiting_at_a_barrier_and_the_final_trap_are_no_loops() -> None:
    kernel = _kernel(
        ".L_x_0:", "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R5], R7", "@!P0 BRA `(.L_x_0)", "EXIT",
        ".L_x_1:", "BRA `(.L_x_1)",
    )  # fmt: skip
    assert kernel.loops == []


@pytest.mark.parametrize(
    ("opcode", "bits", "atomic", "product"),
    [
        ("LDG.E", 32, False, False),
        ("LDG.E.U8.CONSTANT", 8, False, False),
        ("LDG.E.LTC128B.128", 128, False, False),
        ("LDG.E.EF.64", 64, False, False),
        ("LDG.E.ENL2.256", 256, False, False),
        ("LDGSTS.E.BYPASS.LTC128B.128", 128, False, False),
        ("LDS.128", 0, False, False),
        ("UTMALDG.2D", 1024, False, False),
        ("REDG.E.ADD.F32.FTZ.RN.STRONG.GPU", 0, True, False),
        ("ATOMG.E.ADD.F16x2.RN.STRONG.GPU", 0, True, False),
        ("ATOMS.CAST.SPIN", 0, True, False),
        ("ATOMG.E.CAS.STRONG.GPU", 0, True, False),
        ("REDG.E.ADD.STRONG.GPU", 0, False, False),
        ("REDG.E.ADD.64.STRONG.GPU", 0, False, False),
        ("REDUX.SUM.S32", 0, False, False),
        ("HMMA.16816.F32.BF16", 0, False, True),
        ("HGMMA.64x128x16.F32.BF16", 0, False, True),
        ("UTCHMMA.2CTA", 0, False, True),
        ("FFMA", 0, False, False),
    ],
)
def test_instruction_is_recognised(opcode: str, bits: int, atomic: bool, product: bool) -> None:
    instruction = Instruction(0, opcode, False, (), "", 0)
    assert instruction.load_bits == bits
    assert instruction.is_float_atomic is atomic
    assert instruction.is_matrix_product is product


def test_table_names_the_largest_time_as_the_bound() -> None:
    facts = {
        "registers": 40,
        "shared": 0,
        "local": 0,
        "spills": 0,
        "instructions": 100,
        "loops": 0,
        "loads": {},
    }
    case = Case("of four", unit="element", units=32, bytes=4.3e6, exponentials=132 * 16)
    row = Row("example", "fp32", 90, facts, {"total": 132 * 4 * 1.8e3, "mufu": 66}, case)
    seconds = row.seconds()
    assert seconds["DRAM"] == pytest.approx(1e-6)
    assert seconds["issue"] == pytest.approx(1e-6)
    assert seconds["MUFU"] == pytest.approx(1 / 1.8e9)
    slow = row._replace(issued={"total": 132 * 8 * 1.8e3, "mufu": 132 * 900})
    assert slow.seconds()["MUFU"] == pytest.approx(1e-6)  # the code takes more than the case needs
    assert "| issue | 2 |" in as_markdown([slow])
    assert "nothing is measured" in as_markdown([slow])
    assert "| DRAM | 0.5 |" in as_markdown([row._replace(issued={"total": 132 * 2 * 1.8e3, "mufu": 66})])
