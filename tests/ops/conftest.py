"""One suite for all backends: each test of an operation runs once per backend."""

from __future__ import annotations

import pytest
import torch

from fcnkern.backends.select import BACKENDS


@pytest.fixture(params=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> str:
    """Name of a backend that can run CPU tensors here, in the test's ``dtype`` and, where it is marked, in fp64."""
    name = str(request.param)
    chosen = next(backend for backend in BACKENDS if backend.name == name)
    parameters = request.node.callspec.params
    in_fp64 = request.node.get_closest_marker("fp64") is not None
    refusal = chosen.refusal("cpu", torch.float64 if in_fp64 else parameters.get("dtype", torch.float32))
    if refusal is not None:
        pytest.skip(f"backend {name}: {refusal}")
    return name


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
