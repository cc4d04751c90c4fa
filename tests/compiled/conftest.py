"""What the tests of machine code use."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.compiled import Found, Job, examine_all, load

# It is compiled by the tools that come with Triton for NVIDIA GPUs, which not every machine has.
collect_ignore_glob = [] if find_spec("triton") and find_spec("triton.backends.nvidia") else ["test_*.py"]


@pytest.fixture(scope="session")
def cold_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder for Triton's compiled kernels."""
    folder = tmp_path_factory.mktemp("triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="class")
def found(request: pytest.FixtureRequest, cold_cache: Path) -> list[Found]:
    """What the specimens of a `CompiledChecks` compile to."""
    module = f"benchmarks.specimens.{request.cls.operation}"
    return list(examine_all([Job(module, i, arch) for i, s in enumerate(load(module)) for arch in s.archs]))
