"""What only a GPU can show of the backends that run on one: streams, graphs, devices, no waiting for the GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fcnkern
from fcnkern import Resample, Sampling
from tests.placement import ON_GPU, refusal

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OPERATIONS = [
    "conv1x1",
    "max_pool2d",
    "upsample_add",
    "upsample_cross_entropy",
    "upsample_argmax",
    "confusion_matrix",
]
DECONV = Resample.deconv(8, 5, (50, 60))
Run = Callable[[Tensor], list[Tensor]]


@pytest.fixture(params=ON_GPU)
def backend(request: pytest.FixtureRequest) -> str:
    if refusal(request.param) is not None:
        pytest.skip(refusal(request.param))
    return str(request.param)


def prepared(operation: str, backend: str, device: str = "cuda") -> tuple[Run, list[Tensor]]:
    """What runs an operation with a seed, forward and, where it has a gradient, backward; and its inputs."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng).to(device).requires_grad_()

    target = torch.randint(0, 7, (2, 50, 60), generator=rng).to(device)
    if operation == "conv1x1":
        inputs = [draw(2, 20, 8, 12), draw(7, 20, 1, 1), draw(7)]
        call = lambda seed: fcnkern.conv1x1(*inputs, dropout_p=0.5, seed=seed, backend=backend)  # noqa: E731
    elif operation == "max_pool2d":
        inputs = [draw(2, 20, 9, 13)]
        call = lambda seed: fcnkern.max_pool2d(*inputs, 2, ceil_mode=True, relu=True, backend=backend)  # noqa: E731
    elif operation == "upsample_add":
        inputs = [draw(2, 7, 5, 6), draw(7, 7, 4, 4), draw(2, 20, 14, 16)]
        scoring = {"skip_weight": draw(7, 20, 1, 1), "skip_bias": draw(7)}
        call = lambda seed: fcnkern.upsample_add(*inputs, stride=2, **scoring, backend=backend)  # noqa: E731
    elif operation == "upsample_cross_entropy":
        inputs = [draw(2, 7, 7, 8)]

        def call(seed: Tensor) -> Tensor:
            sampling = Sampling(0.5, cell=4, seed=seed)
            return fcnkern.upsample_cross_entropy(*inputs, target, DECONV, sampling=sampling, backend=backend)
    elif operation == "upsample_argmax":
        inputs = [draw(2, 7, 7, 8)]
        call = lambda seed: fcnkern.upsample_argmax(*inputs, DECONV, backend=backend)  # noqa: E731
    else:
        inputs = [draw(2, 7, 7, 8)]
        call = lambda seed: fcnkern.confusion_matrix(*inputs, target, resample=DECONV, backend=backend)  # noqa: E731

    def run(seed: Tensor) -> list[Tensor]:
        result = call(seed)
        return [result.detach(), *(torch.autograd.grad(result.sum(), inputs) if result.requires_grad else ())]

    return run, inputs


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_graph_replays_with_another_seed(backend: str, operation: str) -> None:
    run, _ = prepared(operation, backend)
    seed = torch.tensor(1, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run(seed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(seed)
    for value in (2, 3):
        seed.fill_(value)
        graph.replay()
        assert same(captured, run(torch.tensor(value, device="cuda")))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_runs_on_the_current_stream(backend: str, operation: str) -> None:
    """The inputs are there only after that stream has slept; any other stream would not wait."""
    run, inputs = prepared(operation, backend)
    seed = torch.tensor(1, device="cuda")
    expected, values = run(seed), [each.detach().clone() for each in inputs]
    with torch.no_grad():
        for each in inputs:
            each.zero_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)
        with torch.no_grad():
            for each, value in zip(inputs, values, strict=True):
                each.copy_(value)
        found = run(seed)
    torch.cuda.synchronize()
    assert same(found, expected)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_never_waits_for_the_gpu(backend: str, operation: str) -> None:
    run, _ = prepared(operation, backend)
    seed = torch.tensor(1, device="cuda")
    run(seed)  # compiles and tunes
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_runs_on_the_device_of_its_tensors(backend: str, operation: str) -> None:
    with torch.cuda.device(0):
        found, expected = (
            prepared(operation, backend, device)[0](torch.tensor(1, device=device))
            for device in ("cuda:1", "cuda:0")
        )
    for value, truth in zip(found, expected, strict=True):
        assert value.device.index == 1
        assert torch.allclose(value.cpu(), truth.cpu(), rtol=1e-5, atol=1e-5)


def test_label_out_of_range_surfaces_once_at_the_next_call(backend: str) -> None:
    good = torch.zeros(1, 5, 6, dtype=torch.uint8, device="cuda")
    wrong = good.clone()
    wrong[0, 3, 4] = 9
    counts = fcnkern.confusion_matrix(good, wrong, 3, backend=backend)
    torch.cuda.synchronize()
    scores = torch.zeros(1, 3, 5, 6, device="cuda")
    with pytest.raises(ValueError, match="target: label 9 at image 0, row 3, column 4"):
        fcnkern.upsample_cross_entropy(scores, good, Resample.identity(), backend=backend)
    assert int(counts.sum()) == 29
    assert int(fcnkern.confusion_matrix(good, good, 3, backend=backend).sum()) == 30
