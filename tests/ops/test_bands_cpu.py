"""Learned upsampling in bands: the same bits for any number of threads, and as the whole at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fcnkern import Resample, upsample_argmax, upsample_cross_entropy
from fcnkern.backends._bands import BAND_BYTES
from fcnkern.ops.upsample_add import outputs_of
from tests.ops._truth import relative_error

SIZE = (330, 300)
DECONV = Resample.deconv(8, 11, SIZE)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(scores: Tensor, weight: Tensor, target: Tensor, threads: int, backend: str) -> list[Tensor]:
    """Loss, gradients and labels."""
    torch.set_num_threads(threads)
    leaves = [scores.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = upsample_cross_entropy(leaves[0], target, DECONV, weight=leaves[1], backend=backend)
    grads = torch.autograd.grad(loss, leaves)
    return [loss.detach(), *grads, upsample_argmax(scores, DECONV, weight=weight, backend=backend)]


@pytest.mark.parametrize("shape", [(21, 21, 16, 16), (21, 1, 16, 16)])
def test_bits_do_not_depend_on_threads(shape: tuple[int, ...]) -> None:
    scores, weight = torch.randn(1, 21, 43, 40), torch.randn(shape) * 0.1
    assert 21 * SIZE[0] * SIZE[1] * 4 > BAND_BYTES  # more than one band
    target = torch.randint(0, 21, (1, *SIZE), dtype=torch.uint8)
    one, *others = (run(scores, weight, target, threads, "cpu") for threads in (1, 2, 3))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    whole = run(scores, weight, target, 2, "reference")
    assert all(relative_error(a, b) < 5e-6 for a, b in zip(one[:3], whole[:3], strict=True))
    assert float((one[3] == whole[3]).float().mean()) > 0.9999


@pytest.mark.parametrize(("shape", "classes"), [((5, 3, 8, 8), 3), ((5, 7, 8, 8), 7), ((5, 1, 8, 8), 5)])
def test_classes_are_the_channels_that_come_out(shape: tuple[int, ...], classes: int) -> None:
    """Of a dense weight its own, also where the scores have more; of a depthwise one the scores'."""
    assert outputs_of(torch.zeros(1, 5, 3, 4), torch.zeros(shape)) == classes
    assert outputs_of(torch.zeros(1, 5, 3, 4), None) == 5
