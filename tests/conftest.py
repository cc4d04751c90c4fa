"""What every test may use."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# Last on the path: helpers are found as tests.…, while an installed fcnkern is not hidden by the checkout.
sys.path.append(str(ROOT))

from tests.emulator.build import use_emulated_kernels

# Before anything imports a kernel: without a GPU those of Triton and CUDA C++ then run on CPU tensors.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    use_emulated_kernels()

import fcnkern

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None:
    from tests._addresses import watch
    from tests._interpreter import mend

    mend()
    watch()


# A shell in the background, or nohup, has its commands ignore signals, which a run of training then leaves ignored.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# Processes that test side by side (pytest -n) share the cores.
_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _processes > 1:
    _threads = max(1, torch.get_num_threads() // _processes)
    torch.set_num_threads(_threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads))


def pytest_configure(config: pytest.Config) -> None:
    """Files start by name. pytest-xdist would start those of the fewest tests last, and here they take longest."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_report_header() -> str:
    return f"fcnkern: {fcnkern.__version__} from {Path(fcnkern.__file__).parent}"


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    """A test draws the same numbers whichever ran before it in its process."""
    torch.manual_seed(0)


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
