"""The networks as exported programs, for the size of images they were exported with."""

from __future__ import annotations

import pytest
import torch

from fcnkern.models import FCN, create
from tests.models import _caffe
from tests.models._bodies import ResNet


@pytest.mark.parametrize("name", ["fcn8s_caffenet", "fcn16s_googlenet", "own"])
def test_an_exported_program_gives_the_same_logits(name: str) -> None:
    if name == "own":
        model = FCN(ResNet(), ("layer3", "layer4"), classes=3).eval()
    else:
        model = create(name, 3, width=1 / 32).eval()
    _caffe.randomize(model)
    example, image = torch.zeros(1, 3, 45, 66), torch.randn(1, 3, 45, 66)
    program = torch.export.export(model, (example,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), model(image))
