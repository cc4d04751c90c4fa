"""The machine code of `upsample_argmax`."""

from __future__ import annotations

from tests.compiled.checks import CompiledChecks


class TestUpsampleArgmax(CompiledChecks):
    operation = "upsample_argmax"
