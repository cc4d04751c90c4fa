"""Instructions per pixel: which kernels are counted, what is least, and that nothing counted is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.cases import CASES, LOSS
from benchmarks.instructions import KERNELS, as_markdown, count, counted_cases, least
from fcnkern.backends.cpu._extension import kernels

VOC = next(case for case in CASES if case.operation == LOSS)


def fake_valgrind(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    tool = folder / "valgrind"
    tool.write_text(f"#!/bin/sh\necho '==1== Collected : {said}' >&2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_the_functions_that_are_counted_exist() -> None:
    if "avx2" not in kernels.build_info()["isas_built"]:
        pytest.skip("this build has no AVX2 level")
    binary = Path(str(kernels.__file__)).read_bytes()
    for name in (each for names in KERNELS.values() for each in names):
        assert f"_ZN7fcnkern4avx2{len(name)}{name}E".encode() in binary
    assert {case.operation for case in counted_cases()} == set(KERNELS)


def test_the_least_is_of_products_and_exponentials() -> None:
    pixels, classes, rows, cells = 500 * 500, 21, 500 * 64, 64 * 64
    products = classes * (3 * pixels + 3 * rows + 18 * cells) + 2.5 * pixels
    exponentials = 4 * classes * cells + cells + pixels / 4
    assert least(VOC) == pytest.approx((products + 10 * exponentials) / 8 / pixels)


def test_what_callgrind_collects_is_divided_by_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_valgrind(tmp_path, monkeypatch, "7500000")
    found = count(VOC)
    assert found.counted == 30
    assert f"| {VOC.name} | 30 | {found.least:.3g} | {found.least / 30:.2g} |" in list(as_markdown([found]))


def test_a_case_of_which_nothing_is_counted_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_valgrind(tmp_path, monkeypatch, "0")
    with pytest.raises(RuntimeError, match=r"loss 21.*: callgrind counted nothing"):
        count(VOC)
