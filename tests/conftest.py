"""What every test may use."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Before anything imports a Triton kernel: without a GPU they then run as Python on CPU tensors.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import fcnkern

ROOT = Path(__file__).resolve().parents[1]

# Last on the path: helpers are found as tests.…, while an installed fcnkern is not hidden by the checkout.
sys.path.append(str(ROOT))

if importlib.util.find_spec("triton") is not None:
    from tests._interpreter import patch_once_a_launch

    patch_once_a_launch()


def pytest_report_header() -> str:
    return f"fcnkern: {fcnkern.__version__} from {Path(fcnkern.__file__).parent}"


@pytest.fixture(scope="session", autouse=True)
def _same_fcnkern_in_new_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Python that a test starts imports the fcnkern under test, not the one of the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(fcnkern.__file__).parents[1]))
        patch.chdir(tmp_path_factory.mktemp("current"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and weights beside the checkout, which not every machine has."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder shared/ beside the checkout (real images and weights)")
    return folder
