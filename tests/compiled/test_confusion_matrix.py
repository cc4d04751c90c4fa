"""The machine code of `confusion_matrix`."""

from __future__ import annotations

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.compiled import _compile_kernels, load
from tests.compiled.checks import CompiledChecks


class TestConfusionMatrix(CompiledChecks):
    operation = "confusion_matrix"


def _exchanges_and_stores() -> list[str]:
    """Of the kernel of label maps, which stores nothing else than reports, in order."""
    from benchmarks.launches import compile_launch

    specimen = load("benchmarks.specimens.confusion_matrix")[0]
    code = compile_launch(specimen.launch, specimen.kernel, 90).compiled.asm["ptx"]
    return re.findall(r"\b(?:st\.global|atom\.global\.[a-z.]*exch)\b", code)


def test_a_report_is_claimed_and_its_index_released_to_the_host_last(cold_cache: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _compile_kernels) as pool:
        found = pool.submit(_exchanges_and_stores).result()
    claim, publish = "atom.global.gpu.relaxed.exch", "atom.global.sys.release.exch"
    assert found == [claim, "st.global", publish] * 2
