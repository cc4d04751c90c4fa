"""What PyTorch is told to take where a program names none, a device or an element type, changes no result."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import fcnkern
from fcnkern import Resample, Sampling
from fcnkern.backends import _labels
from tests.placement import placed

SIZE = (11, 13)


def losses(backend: str, *sizes: int, **options: object) -> Iterator[Tensor]:
    scores = torch.randn(2, 3, *sizes, device="cpu", dtype=torch.float32, requires_grad=True)
    target = torch.randint(0, 3, (2, *SIZE), device="cpu")
    loss, counts = placed(fcnkern.upsample_cross_entropy)(
        scores, target, return_stats=True, backend=backend, **options
    )
    yield from (loss, counts, *torch.autograd.grad(loss.sum(), scores))


def learned(backend: str) -> Iterator[Tensor]:
    weight = torch.randn(3, 3, 4, 4, device="cpu", dtype=torch.float32)
    return losses(backend, 5, 6, resample=Resample.deconv(2), weight=weight)


def hard(backend: str) -> Iterator[Tensor]:
    return losses(backend, 4, 5, resample=Resample.half_pixel(), sampling=Sampling.hard(0.3, 20))


def of_each_pixel(backend: str) -> Iterator[Tensor]:
    return losses(backend, 4, 5, resample=Resample.half_pixel(), reduction="none")


def full_size(backend: str) -> Iterator[Tensor]:
    return losses(backend, *SIZE, resample=Resample.identity())


def labels(backend: str) -> Iterator[Tensor]:
    scores = torch.randn(2, 3, 4, 5, device="cpu", dtype=torch.float32)
    resample = Resample.half_pixel(size=SIZE)
    found = placed(fcnkern.upsample_argmax)(scores, resample, return_confidence=True, backend=backend)
    yield from found
    yield placed(fcnkern.confusion_matrix)(found[0], found[0], 3, backend=backend)


def classifier(backend: str) -> Iterator[Tensor]:
    sizes = ((1, 7, 4, 5), (3, 7, 1, 1), (3,))
    leaves = [torch.randn(each, device="cpu", dtype=torch.float32, requires_grad=True) for each in sizes]
    out = placed(fcnkern.conv1x1)(*leaves, relu=True, dropout_p=0.3, seed=5, backend=backend)
    yield from (out, *torch.autograd.grad(out.sum(), leaves))


def skip_step(backend: str) -> Iterator[Tensor]:
    sizes = ((1, 3, 3, 2), (3, 3, 6, 6), (1, 3, 13, 9))
    x, weight, skip = (
        torch.randn(each, device="cpu", dtype=torch.float32, requires_grad=True) for each in sizes
    )
    bilinear = placed(fcnkern.upsample_add)(x, stride=(3, 1), backend=backend)
    out = placed(fcnkern.upsample_add)(x, weight, skip, stride=(3, 3), backend=backend)
    yield from (bilinear, out, *torch.autograd.grad(out.sum(), (x, weight, skip)))


def pooling(backend: str) -> Iterator[Tensor]:
    x = torch.randn(1, 3, 7, 9, device="cpu", dtype=torch.float32, requires_grad=True)
    out = placed(fcnkern.max_pool2d)(x, 3, 2, backend=backend)
    yield from (out, *torch.autograd.grad(out.sum(), x))


CALLS = (learned, hard, of_each_pixel, full_size, labels, classifier, skip_step, pooling)


def check_same(call: Callable[[str], Iterator[Tensor]], backend: str, results: list[Tensor]) -> None:
    torch.manual_seed(0)
    for found, wanted in zip(results, call(backend), strict=True):
        assert (found.dtype, found.device) == (wanted.dtype, wanted.device)
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("call", CALLS)
def test_the_default_device(
    call: Callable[[str], Iterator[Tensor]], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels would take the addresses of memory that is elsewhere, or nowhere."""
    monkeypatch.setattr(_labels, "_reports", {})
    with torch.device("meta"):
        results = list(call(backend))
    check_same(call, backend, results)


@pytest.mark.parametrize("call", CALLS)
def test_the_default_element_type(call: Callable[[str], Iterator[Tensor]], backend: str) -> None:
    """Kernels would find and write numbers of another width than the memory was made for."""
    torch.set_default_dtype(torch.float64)
    try:
        results = list(call(backend))
    finally:
        torch.set_default_dtype(torch.float32)
    check_same(call, backend, results)
