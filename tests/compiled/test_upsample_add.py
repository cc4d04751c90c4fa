"""The machine code of `upsample_add`."""

from __future__ import annotations

from tests.compiled.checks import CompiledChecks


class TestUpsampleAdd(CompiledChecks):
    operation = "upsample_add"
