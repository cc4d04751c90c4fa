"""Two processes on the CPU: the curve of one with twice the batch, exact metrics, resume, stops and deaths."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fcnkern.data import preset
from fcnkern.engine import confusion_over, load_checkpoint, load_trained, resume_run
from fcnkern.engine.log import read_log
from tests.engine import _pair
from tests.engine._runs import losses

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--module",
    "fcnkern",
    "train",
]


def start(command: Sequence[str | Path], **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def in_two_processes(out: Path, *what: str) -> list[tuple[int, str]]:
    """Two processes of ``_pair.py``, to their end: of each the exit code and what it wrote on standard error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    # Last, so that an installed package comes before the checkout's.
    path = f"import runpy, sys; sys.path.append({str(ROOT)!r})"
    code = f"{path}; runpy.run_path({_pair.__file__!r}, run_name='__main__')"
    pair = [start([sys.executable, "-c", code, out, *what], RANK=str(rank), **group) for rank in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in pair]
    return [(process.returncode, text) for process, text in zip(pair, errors, strict=True)]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.02)


def rows(run: Path) -> int:
    return len(read_log(run / "log.csv")) if (run / "log.csv").exists() else 0


def workers(pair: subprocess.Popen[str]) -> dict[int, int]:
    """The process ids of torchrun's children, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pair.pid:
                variables = (folder / "environ").read_bytes().split(b"\0")
                found[int(next(v for v in variables if v.startswith(b"RANK="))[5:])] = int(folder.name)
        except (OSError, StopIteration):
            continue
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]]]:
    """The folder of what two processes did, and how each ended: exit code and what is on standard error."""
    out = tmp_path_factory.mktemp("two")
    return out, in_two_processes(out, "curves", "resumed", "sharded", "stopped", "broken")


@pytest.fixture(scope="module")
def both(
    program: tuple[Path, list[tuple[int, str]]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Folders of what two processes did, and of what one did with twice the batch."""
    two, one = program[0], tmp_path_factory.mktemp("one")
    assert (two / "losses.pt").exists(), program[1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _pair.curves(one)
    _pair.sharded(one)
    torch.set_num_threads(threads)
    return two, one


@pytest.mark.parametrize("name", _pair.VARIANTS)
def test_two_processes_have_the_curve_of_one_with_twice_the_batch(both: tuple[Path, Path], name: str) -> None:
    pair, single = ([row for row in read_log(out / name / "log.csv") if row["loss"]] for out in both)
    assert len(pair) == 4
    for column in ("loss", "pixel_loss"):
        got, wanted = (np.array([float(row[column]) for row in run]) for run in (pair, single))
        np.testing.assert_allclose(got, wanted, rtol=2e-6)
        assert np.ptp(wanted) > 0.001 * wanted.mean()
    assert [row["accuracy"] for row in pair] == [row["accuracy"] for row in single]
    ends = [load_checkpoint(out / name / "last.pt")["state_dict"] for out in both]
    for layer, value in ends[1].items():
        torch.testing.assert_close(ends[0][layer], value, rtol=1e-4, atol=1e-6)


def test_the_mean_of_the_processes_means_is_another_curve(both: tuple[Path, Path]) -> None:
    naive, single = (
        [float(loss) for _, loss in losses(out)] for out in (both[0] / "naive", both[1] / "mean")
    )
    assert abs(naive[-1] / single[-1] - 1) > 0.01


@pytest.mark.parametrize("name", _pair.VARIANTS)
def test_metrics_are_exactly_those_of_one_process(both: tuple[Path, Path], name: str) -> None:
    last = both[0] / name / "last.pt"
    trained, record = load_trained(last), load_checkpoint(last)
    matrix = confusion_over(trained.model, _pair.data_of(name, 5, seed=1), preset(trained.model.preprocess))
    assert torch.equal(record["confusion"], matrix)
    assert matrix.sum() > 0


def test_two_processes_resume_bit_for_bit(both: tuple[Path, Path]) -> None:
    whole, parts = (load_checkpoint(both[0] / run / "last.pt") for run in ("whole", "parts"))
    assert all(torch.equal(value, parts["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert torch.equal(whole["rng"], parts["rng"])
    assert losses(both[0] / "whole") == losses(both[0] / "parts")
    assert not torch.equal(*whole["rng"])


def test_sharded_parameters_give_the_same_steps(both: tuple[Path, Path]) -> None:
    sharded, plain = (torch.tensor(torch.load(out / "losses.pt")) for out in both)
    torch.testing.assert_close(sharded, plain, rtol=1e-5, atol=0)
    assert plain[-1, 0] < plain[0, 0]


def test_an_error_of_one_process_ends_both_and_is_told_once(
    program: tuple[Path, list[tuple[int, str]]],
) -> None:
    (first, silence), (second, told) = program[1]
    assert (first, second) == (2, 2)
    assert "Traceback" not in silence
    assert "ValueError: " in told
    assert "200" in told.splitlines()[-1]
    assert "image_" in told.splitlines()[-1]


def test_a_signal_to_one_process_stops_both_after_the_same_iteration(
    program: tuple[Path, list[tuple[int, str]]],
) -> None:
    out, ends = program
    last = out / "stopped" / "last.pt"
    assert load_checkpoint(last)["iteration"] == len(losses(out / "stopped")) == _pair.STOPPED
    told = "".join(text for _, text in ends)
    assert told.count(f"stopped at iteration {_pair.STOPPED}; go on with: fcnkern train --resume {last}") == 1
    with pytest.raises(ValueError, match=r"the run has 2 processes, .* cannot go on with 1: use torchrun"):
        resume_run(last, quiet=True)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_torchrun_goes_on_and_a_death_ends_both(program: tuple[Path, list[tuple[int, str]]]) -> None:
    out = program[0] / "stopped"
    pair = start([*TORCHRUN, "--quiet", "--resume", out, "--iterations", "100000"])
    until(lambda: rows(out) > _pair.STOPPED + 2)
    killed = time.monotonic()
    os.kill(workers(pair)[1], signal.SIGKILL)
    errors = pair.communicate(timeout=60)[1]
    assert time.monotonic() - killed < 15
    assert pair.returncode != 0
    assert errors.count("fcnkern: error: rank 1 of 2 ended or answers no more") == 1
    assert load_checkpoint(out / "last.pt")["iteration"] >= _pair.STOPPED
