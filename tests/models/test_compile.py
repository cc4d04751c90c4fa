"""The networks under torch.compile: one graph, not traced again for another image size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from fcnkern.models import FCN, FCN8s, create
from tests.models import _caffe, _torchfcn
from tests.models._bodies import ResNet

# Sizes whose fc7 maps have more than one cell per axis: PyTorch traces sizes of one separately.
SIZES = ((64, 50), (41, 75))


def network(upsampling: str) -> FCN8s:
    model = FCN8s(3, 1 / 16, upsampling).eval()
    model.load_state_dict(_torchfcn.random_state("FCN8s", n_class=3))
    return model


def check_single_graph(function: Callable[..., Tensor], with_labels: bool) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for size in SIZES:
        inputs = (torch.randn(1, 3, *size), torch.randint(0, 3, (1, *size)))[: 1 + with_labels]
        torch.testing.assert_close(compiled(*inputs), function(*inputs), rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_loss(upsampling: str) -> None:
    check_single_graph(network(upsampling).loss, with_labels=True)


def test_predict() -> None:
    check_single_graph(network("fixed").predict, with_labels=False)


def test_forward() -> None:
    check_single_graph(network("fixed"), with_labels=False)


def test_another_body() -> None:
    model = create("fcn8s_caffenet", 3, width=1 / 32).eval()
    _caffe.randomize(model)
    check_single_graph(model.loss, with_labels=True)


def test_taps_of_a_body_of_the_users_own() -> None:
    model = FCN(ResNet(), ("layer3", "layer4"), classes=3).eval()
    _caffe.randomize(model)
    check_single_graph(model.predict, with_labels=False)
