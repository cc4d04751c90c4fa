"""What every test may use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Last on the path: helpers are found as tests.…, while an installed fcnkern is not hidden by the checkout.
sys.path.append(str(ROOT))


def pytest_report_header() -> str:
    import fcnkern

    return f"fcnkern: {fcnkern.__version__} from {Path(fcnkern.__file__).parent}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and weights beside the checkout, which not every machine has."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder shared/ beside the checkout (real images and weights)")
    return folder
