"""What denser outputs cost: skip fusion beside shift-and-stitch and filter rarefaction (CVPR 2015 section 3.2).

All start from FCN-32s on VGG16, whose scores lie 32 pixels apart, and give scores 16 or 8 pixels apart. Skip fusion
("ours") is FCN-16s or FCN-8s. It also sees finer detail, which the other two do not.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.cases import DENSITY, Case
from benchmarks.contenders import Contender, Result
from benchmarks.measure import measure, parameters
from fcnkern.models import FCN, FCN8s, FCN16s, FCN32s, rarefy, shift_and_stitch

BOUND = 1e-3  # relative; networks in fp32, sixteen layers deep
COARSE = 32
FINER: dict[int, Callable[..., FCN]] = {16: FCN16s, 8: FCN8s}


def contenders(case: Case) -> dict[str, Contender]:
    x, to = torch.randn(case.images, 3, *case.shape.size), case.resample.factor[0]
    trunk, fused = scorer(case), _drawn(FINER[to], case)
    spread, step = rarefy(trunk, to), COARSE // to

    def own(outputs: Tensor) -> Tensor:
        """Those of the dense outputs that the coarse network has too."""
        return outputs[:, :, ::step, ::step]

    exact, coarse = copy.deepcopy(fused).double(), copy.deepcopy(trunk).double()
    fine_truth, truth = _call(lambda: exact.scores(x.double())[0]), _call(lambda: coarse(x.double()))
    return {
        "ours": Contender(_call(lambda: fused.scores(x)[0]), fine_truth, BOUND),
        "rarefied": Contender(_call(lambda: own(spread(x))), truth, BOUND),
        "shift-and-stitch": Contender(_call(lambda: own(shift_and_stitch(trunk, x, to))), truth, BOUND),
        "stride 32": Contender(_call(lambda: trunk(x)), truth, BOUND),
    }


def scorer(case: Case) -> nn.Sequential:
    """FCN-32s up to its scores, layer by layer."""
    children = _drawn(FCN32s, case).named_children()
    return nn.Sequential(OrderedDict(takewhile(lambda child: child[0] != "upscore", children)))


def _drawn(make: Callable[..., FCN], case: Case) -> FCN:
    """A network whose classifiers tell classes apart: as constructed they are zero."""
    network = make(case.shape.classes, width=case.width).eval()
    for name, parameter in network.named_parameters():
        if name.startswith("score_") and parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return network


def _call(run: Callable[[], Tensor]) -> Callable[[], Result]:
    @torch.no_grad()
    def called() -> Result:
        return (run(),)

    return called


@pytest.mark.parametrize(("case", "name"), parameters(DENSITY))
def test_density(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    measure(benchmark, case, name)
