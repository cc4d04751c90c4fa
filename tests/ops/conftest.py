"""One suite for all backends: each test of an operation runs once per backend."""

from __future__ import annotations

import pytest
import torch

from fcnkern.backends.select import BACKENDS
from tests.placement import refusal


@pytest.fixture(params=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> str:
    """Name of a backend that can run here, in the test's ``dtype`` and, where it is marked, in fp64."""
    name = str(request.param)
    parameters = request.node.callspec.params
    in_fp64 = request.node.get_closest_marker("fp64") is not None
    dtype = torch.float64 if in_fp64 else parameters.get("dtype", torch.float32)
    reason = refusal(name, dtype)
    if reason is not None:
        pytest.skip(reason)
    return name


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
