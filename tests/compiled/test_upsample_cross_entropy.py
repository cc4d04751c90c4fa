"""The machine code of `upsample_cross_entropy`."""

from __future__ import annotations

from tests.compiled.checks import CompiledChecks


class TestUpsampleCrossEntropy(CompiledChecks):
    operation = "upsample_cross_entropy"
