"""The machine code of `confusion_matrix`."""

from __future__ import annotations

from tests.compiled.checks import CompiledChecks


class TestConfusionMatrix(CompiledChecks):
    operation = "confusion_matrix"
