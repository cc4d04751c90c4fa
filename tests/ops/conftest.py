"""One suite for all backends: each test of an operation runs once per backend."""

from __future__ import annotations

import pytest
import torch

from fcnkern.backends.select import BACKENDS


@pytest.fixture(params=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> str:
    """Name of a backend that can run CPU tensors here."""
    name = str(request.param)
    chosen = next(backend for backend in BACKENDS if backend.name == name)
    refusal = chosen.refusal("cpu")
    if refusal is not None:
        pytest.skip(f"backend {name}: {refusal}")
    return name


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
