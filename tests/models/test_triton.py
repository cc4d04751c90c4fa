"""A whole network on the Triton kernels, eager and compiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcnkern.models import FCN8s
from tests.models import _torchfcn
from tests.placement import device_of, refusal

pytestmark = pytest.mark.skipif(refusal("triton") is not None, reason=str(refusal("triton")))
DEVICE = device_of("triton")


@pytest.fixture(autouse=True)
def _convolutions_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def outcome(model: FCN8s, image: Tensor, labels: Tensor) -> list[Tensor]:
    """Loss, gradients and predicted labels."""
    loss = model.loss(image, labels)
    parameters = [each for each in model.parameters() if each.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, parameters), model.predict(image)]


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_same_as_plain_torch(monkeypatch: pytest.MonkeyPatch, upsampling: str) -> None:
    torch.manual_seed(0)
    model = FCN8s(3, 1 / 32, upsampling).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "score" in name:
                parameter.normal_(std=0.1)
    model = model.to(DEVICE)
    image, labels = torch.randn(1, 3, 16, 24).to(DEVICE), torch.randint(0, 3, (1, 16, 24)).to(DEVICE)
    monkeypatch.setenv("FCNKERN_BACKEND", "reference")
    expected = outcome(model, image, labels)
    monkeypatch.setenv("FCNKERN_BACKEND", "triton")
    for ours, theirs in zip(outcome(model, image, labels), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_compiles_into_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNKERN_BACKEND", "triton")
    model = FCN8s(3, 1 / 16).eval()
    model.load_state_dict(_torchfcn.random_state("FCN8s", n_class=3))
    model = model.to(DEVICE)
    image, labels = torch.randn(1, 3, 16, 24).to(DEVICE), torch.randint(0, 3, (1, 16, 24)).to(DEVICE)
    torch._dynamo.reset()
    compiled = torch.compile(model.loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, labels), model.loss(image, labels))
