"""Large results of the CPU kernels: the system is asked for pages of 2 MiB, as its record of the process tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fcnkern import functional as F
from fcnkern.backends.cpu._memory import LARGE, in_huge_pages

RECORD = Path("/proc/self/smaps")
CHOICE = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = pytest.mark.skipif(
    not (RECORD.exists() and CHOICE.exists()), reason="the system has no transparent huge pages"
)


def is_advised(tensor: Tensor) -> bool:
    """Whether the middle of a tensor lies in memory that huge pages are asked for."""
    middle = tensor.data_ptr() + tensor.nbytes // 2
    inside = False
    for line in RECORD.read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= middle < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError(f"no memory at {middle:#x}")


def test_large_results_are_in_huge_pages() -> None:
    x = torch.randn(1, 64, 512, 512, requires_grad=True)
    y = F.max_pool2d(x, 1, backend="cpu")
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert not is_advised(x)
    assert is_advised(y)
    assert is_advised(grad)


def test_the_gradient_of_a_skip_is_zero_outside_its_crop_in_huge_pages_too() -> None:
    x, skip = torch.randn(1, 2, 4, 4), torch.randn(1, 64, 512, 512, requires_grad=True)
    y = F.upsample_add(
        x, None, skip, stride=8, skip_offset=7, skip_weight=torch.ones(2, 64, 1, 1), backend="cpu"
    )
    (grad,) = torch.autograd.grad(y, skip, torch.ones_like(y))
    expected = torch.zeros_like(skip)
    expected[:, :, 7 : 7 + y.shape[2], 7 : 7 + y.shape[3]] = 2
    assert torch.equal(grad, expected)
    assert is_advised(grad)


def test_small_results_are_left_where_they_are() -> None:
    small = torch.empty(LARGE // 4 - 1)
    assert in_huge_pages(small) is small
    block = torch.empty(1 << 26, dtype=torch.uint8)  # a mapping of its own
    in_huge_pages(block[: LARGE - 1])
    assert not is_advised(block)
    in_huge_pages(block)
    assert is_advised(block)
