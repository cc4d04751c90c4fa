"""What is measured: one table of cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fcnkern import Resample


class Shape(NamedTuple):
    """C classes, (h, w) of scores or features, (H, W) of the labels or of the result."""

    classes: int
    size: tuple[int, int]
    out: tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One operation at one shape, and the rivals that it is measured against.

    Args:
        name: what the tables say.
        operation: the stem; ``benchmarks.bench_<operation>`` builds the contenders.
        shape: classes and sizes; one image.
        rivals: each with the ratio to reach (its time ÷ ours), or None where there is no goal.
        resample: how scores become labels.
        labels: "patches" (20×20 pixels of one label, one in 22 ignored) or "noise" (each pixel its own).
        keep: probability with which the loss keeps a cell of ``cell``×``cell`` pixels.
        features: channels of the skip, or of what the 1×1 convolution reads.
        gradients: whether the backward pass is measured too.
        quick: whether ``--quick`` measures it.
    """

    name: str
    operation: str
    shape: Shape
    rivals: Mapping[str, float | None]
    resample: Resample = field(default_factory=Resample.half_pixel)
    labels: str = "patches"
    keep: float = 1.0
    cell: int = 1
    features: int = 0
    gradients: bool = False
    quick: bool = False

    def __str__(self) -> str:
        return self.name

    def contenders(self, quick: bool = False) -> list[str]:
        """ "ours" and the names of the rivals; compiling takes longer than a quick run."""
        return ["ours", *(name for name in self.rivals if not (quick and name.startswith("compiled")))]


LOSS, ARGMAX, ADD = "upsample_cross_entropy", "upsample_argmax", "upsample_add"
CONFUSION, CONV = "confusion_matrix", "conv1x1"
VOC = Shape(21, (70, 70), (500, 500))
ADE = Shape(150, (128, 128), (512, 512))
CITY = Shape(19, (128, 256), (1024, 2048))
SKIP = Shape(21, (34, 34), (70, 70))
FC7 = Shape(1024, (22, 22), (22, 22))
CAFFE = Resample.deconv(8, 31)
EAGER: dict[str, float | None] = {"interpolate": None}


def _losses() -> list[Case]:
    goals = {"interpolate": 45, "dense deconvolution": 90, "compiled interpolate": 40}
    cases = [
        Case("loss 21×500×500 deconv(8, 31)", LOSS, VOC, goals, CAFFE, quick=True),
        Case("loss 21×500×500 deconv(8, 31), noise", LOSS, VOC, EAGER, CAFFE, labels="noise"),
        Case("loss 21×500×500 half_pixel", LOSS, VOC, EAGER),
        Case("loss 150×512×512 half_pixel", LOSS, ADE, EAGER),
        Case("loss 19×1024×2048 half_pixel", LOSS, CITY, EAGER | {"compiled interpolate": None}),
    ]
    for cell in (32, 8):
        for keep in (0.5, 0.25):
            name = f"loss 21×500×500 deconv(8, 31), {keep:g} of the {cell}×{cell} cells"
            rivals = EAGER | {"all pixels": None}
            cases.append(Case(name, LOSS, VOC, rivals, CAFFE, keep=keep, cell=cell, quick=cell == 32))
    return cases


def _argmaxes() -> list[Case]:
    goals = {"interpolate": 45, "dense deconvolution": None, "compiled interpolate": None}
    return [
        Case("argmax 21×500×500 deconv(8, 31)", ARGMAX, VOC, goals, CAFFE, quick=True),
        Case("argmax 150×512×512 half_pixel", ARGMAX, ADE, EAGER),
        Case("argmax 19×1024×2048 half_pixel", ARGMAX, CITY, EAGER),
    ]


def _others() -> list[Case]:
    eager: dict[str, float | None] = {"eager": None}
    from_scores: dict[str, float | None] = {"interpolate, argmax, bincount": None}
    return [
        Case("skip step 512→21×70×70", ADD, SKIP, {"eager": 2}, features=512, quick=True),
        Case("skip step 512→21×70×70, gradients", ADD, SKIP, eager, features=512, gradients=True),
        Case("confusion of label maps 21×500×500", CONFUSION, VOC, {"bincount": 10}, quick=True),
        Case("confusion of scores 21×500×500 deconv(8, 31)", CONFUSION, VOC, from_scores, CAFFE, quick=True),
        Case(
            "1×1, ReLU, dropout 1024→1024×22×22, gradients", CONV, FC7, eager, features=1024, gradients=True
        ),
    ]


CASES = [*_losses(), *_argmaxes(), *_others()]
