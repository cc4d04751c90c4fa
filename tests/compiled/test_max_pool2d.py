"""The machine code of `max_pool2d`."""

from __future__ import annotations

from tests.compiled.checks import CompiledChecks


class TestMaxPool2d(CompiledChecks):
    operation = "max_pool2d"
