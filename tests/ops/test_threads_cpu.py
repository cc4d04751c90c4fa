"""The C++ kernels' use of threads: work enough for two takes two of a team of four, and ends none of the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcnkern import _native

CALLS = """
import os
import torch
from fcnkern import Resample
from fcnkern.functional import (
    confusion_matrix, conv1x1, max_pool2d, upsample_add, upsample_argmax, upsample_cross_entropy
)

def tasks():
    return set(os.listdir("/proc/self/task"))

def whole_team():
    torch.ones(1 << 20).sin()
    return tasks()

torch.set_num_threads(4)
scores, labels = torch.randn(1, 21, 16, 16, requires_grad=True), torch.randint(0, 21, (1, 128, 128))
features, weight = torch.randn(1, 64, 16, 16, requires_grad=True), torch.randn(32, 64, 1, 1, requires_grad=True)
planes = torch.randn(8, 8, 80, 80, requires_grad=True)
maps = torch.randint(0, 200, (1, 200, 200))
up = Resample.half_pixel((128, 128))
before = whole_team()
for call in (
    lambda: upsample_cross_entropy(scores, labels, up).backward(),
    lambda: upsample_argmax(scores, up),
    lambda: confusion_matrix(maps, maps, 200),
    lambda: conv1x1(features, weight, relu=True).sum().backward(),
    lambda: upsample_add(scores, None, stride=8).sum().backward(),
    lambda: max_pool2d(planes, 2).sum().backward(),
):
    call()
    print(len(before), len(before & whole_team()))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's list of a process's threads")
@pytest.mark.skipif(_native.extension is None, reason="needs the C++ kernels")
def test_no_call_ends_threads_of_the_team() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "4", "FCNKERN_BACKEND": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", CALLS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(counts) == 6
    for before, kept in counts:
        assert before >= 4
        assert kept == before
