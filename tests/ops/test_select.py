"""A Triton that is missing, too old or has no GPU is refused with the reason, and all else goes on.

Tensors that are more or less than their memory go through PyTorch's dispatcher, which knows what they stand for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fcnkern import Resample, confusion_matrix, conv1x1, info, max_pool2d, upsample_add, upsample_argmax
from fcnkern import upsample_cross_entropy as ce
from fcnkern.backends import select

LABELS = torch.zeros(2, 8, 8, dtype=torch.uint8)
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv1x1": lambda x: conv1x1(x, torch.ones(5, 3, 1, 1).to(x)),
    "max_pool2d": lambda x: max_pool2d(x, 2),
    "upsample_add": lambda x: upsample_add(x, stride=2),
    "upsample_cross_entropy": lambda x: ce(x, LABELS.to(x.device), Resample.half_pixel()),
    "losses": lambda x: ce(x, LABELS.to(x.device), Resample.half_pixel(), reduction="none"),
    "upsample_argmax": lambda x: upsample_argmax(x, Resample.deconv(2)),
    "confusion_matrix": lambda x: confusion_matrix(x, LABELS.to(x.device), resample=Resample.half_pixel()),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
differentiable = pytest.mark.parametrize("call", list(CALLS.values())[:5], ids=list(CALLS)[:5])


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """What was found out about the real Triton counts neither here nor, of this one, elsewhere."""
    found_out = (select._missing_triton, select._uncovered_by_triton, select._choose)
    for known in found_out:
        known.cache_clear()
    yield
    for known in found_out:
        known.cache_clear()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "triton cannot be imported: "),
        (SimpleNamespace(__version__="3.5.1"), "triton 3.5.1 is too old, wanted 3.6 or newer"),
        (SimpleNamespace(__version__="2.10.0+git1"), "triton 2.10.0.*is too old, wanted 3.6 or newer"),
    ],
)
def test_unusable_triton(monkeypatch: pytest.MonkeyPatch, found: object, reason: str) -> None:
    monkeypatch.setitem(sys.modules, "triton", found)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x, weight = torch.randn(1, 3, 4, 4), torch.randn(2, 3, 1, 1)
    with pytest.raises(RuntimeError, match=f"no backend for conv1x1 on cpu tensors: triton: {reason}"):
        conv1x1(x, weight, backend="triton")
    torch.testing.assert_close(conv1x1(x, weight), conv1x1(x, weight, backend="reference"))


def test_device_and_type_that_triton_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(1, 3, 4, 4), torch.randn(2, 3, 1, 1)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="triton: it does not take float64"):
        conv1x1(x.double(), weight.double(), backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match="triton: it takes cuda and xpu tensors, these are cpu tensors"):
        conv1x1(x, weight, backend="triton")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The compute capabilities of the GPUs that there seem to be; a test may change them."""
    capabilities = [(7, 5)]
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.6.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "hip", None)
    return capabilities


def test_a_gpu_that_triton_cannot_compile_for(gpus: list[tuple[int, int]]) -> None:
    """Another backend takes its tensors, and the reason is told."""
    reason = "it takes GPUs of compute capability 8.0 or newer, cuda:0 has 7.5"
    chosen = select._choose("conv1x1", torch.device("cuda", 0), torch.float32, None)
    assert chosen.__name__ != "fcnkern.backends.triton.conv1x1"
    with pytest.raises(RuntimeError, match=f"no backend for conv1x1 on cuda tensors: triton: {reason}"):
        select._choose("conv1x1", torch.device("cuda", 0), torch.float32, "triton")
    assert info()["backends"]["triton"] == {"available": False, "reason": reason}


def test_one_gpu_of_two_that_triton_compiles_for(gpus: list[tuple[int, int]]) -> None:
    gpus.append((8, 0))
    triton = next(each for each in select.BACKENDS if each.name == "triton")
    assert triton.refusal("cuda:0", torch.bfloat16) is not None
    assert triton.refusal("cuda:1", torch.bfloat16) is None
    assert info()["backends"]["triton"] == {"available": True, "reason": None}


@pytest.mark.parametrize("device", ["cuda:0", "xpu:0"])
def test_a_gpu_that_is_not_of_nvidia(
    monkeypatch: pytest.MonkeyPatch, gpus: list[tuple[int, int]], device: str
) -> None:
    """ROCm's GPUs are cuda devices too, with a capability of another meaning."""
    monkeypatch.setattr(torch.version, "hip", "6.4" if device == "cuda:0" else None)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: device == "xpu:0")
    triton = next(each for each in select.BACKENDS if each.name == "triton")
    assert triton.refusal(device, torch.bfloat16) is None


def test_everything_else_works_without_triton() -> None:
    """All modules are imported, and the operations take CPU tensors forward and backward."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, fcnkern.cli, fcnkern.models, fcnkern.engine\n"
        "x, labels = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (1, 8, 8))\n"
        "scores = fcnkern.conv1x1(x, torch.randn(3, 3, 1, 1))\n"
        "resample = fcnkern.Resample.half_pixel()\n"
        "fcnkern.upsample_cross_entropy(scores, labels, resample).backward()\n"
        "assert torch.isfinite(x.grad).all()\n"
        "print('done')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert run.stdout.strip() == "done", run.stderr


def negated(*shape: int) -> Tensor:
    """A tensor whose memory holds its elements with the other sign."""
    return torch.randn(shape, dtype=torch.complex64).conj().imag


@every_call
def test_elements_that_are_not_in_memory(call: Callable[[Tensor], Tensor]) -> None:
    for x in (negated(2, 3, 4, 4), torch._efficientzerotensor(2, 3, 4, 4)):
        assert torch.equal(call(x), call(x.clone()))
    x = torch.randn(2, 3, 4, 4)
    there, here = call(x.to("meta")), call(x)
    assert (there.is_meta, there.shape, there.dtype) == (True, here.shape, here.dtype)


@differentiable
def test_gradients_that_are_not_in_memory(call: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    shape = call(x).shape
    for slope in (negated(*shape), torch._efficientzerotensor(shape)):
        found, wanted = (torch.autograd.grad(call(x), x, each)[0] for each in (slope, slope.clone()))
        assert torch.equal(found, wanted)


@differentiable
def test_a_tangent_is_refused(call: Callable[[Tensor], Tensor]) -> None:
    """It would be lost without a word."""
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(
        NotImplementedError, match="has no forward-mode derivative, got an argument with a tangent"
    ):
        torch.func.jvp(call, (x,), (x,))
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
            call(forward_ad.make_dual(x, x))
        assert torch.isfinite(call(x)).all()
