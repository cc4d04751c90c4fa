"""The machine code of `conv1x1`."""

from __future__ import annotations

from tests.compiled.checks import CompiledChecks


class TestConv1x1(CompiledChecks):
    operation = "conv1x1"
