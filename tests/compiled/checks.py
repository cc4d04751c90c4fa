"""What is checked of the machine code of every operation. It is compiled here, for a GPU that need not be there."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any, ClassVar

import pytest

from benchmarks.compiled import RESULTS, Found, load


class CompiledChecks:
    """The specimens of one operation: they do what they claim, and the committed table is of this code."""

    operation: ClassVar[str]

    def test_machine_code_is_what_the_specimens_claim(self, found: list[Found]) -> None:
        assert [f"{f.row.name}, sm_{f.row.arch}: {failure}" for f in found for failure in f.failures] == []

    def test_committed_table_has_these_specimens(self) -> None:
        specimens = load(f"benchmarks.specimens.{self.operation}")
        expected = {(specimen.name, arch) for specimen in specimens for arch in specimen.offered}
        assert set(self._table()) == expected, "python -m benchmarks.compiled --write"

    def test_nothing_spills_on_any_architecture(self) -> None:
        facts = {key: row["facts"] for key, row in self._table().items()}
        assert [key for key, fact in facts.items() if fact["spills"] or fact["local"]] == []

    def test_committed_table_is_of_this_machine_code(self, found: list[Found]) -> None:
        written = _results()["circumstances"]["triton"]
        if version("triton") != written:
            pytest.skip(f"the table is of Triton {written}, here is {version('triton')}")
        assert [(f.row.name, f.row.arch, f.miscounted) for f in found if f.miscounted] == []
        table = self._table()
        now = {(f.row.name, f.row.arch): {**f.row.facts, "issued": f.row.issued} for f in found}
        then = {key: {**table[key]["facts"], "issued": table[key]["issued"]} for key in now}
        assert now == then, "python -m benchmarks.compiled --write"

    def _table(self) -> dict[tuple[str, int], dict[str, Any]]:
        rows = [row for row in _results()["rows"] if row["operation"] == self.operation]
        return {(row["name"], row["arch"]): row for row in rows}


def _results() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.with_suffix(".json").read_text())
    return results
