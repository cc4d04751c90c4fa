"""What is measured: one table of cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

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
        shape: classes and sizes of each image.
        rivals: each with the ratio to reach (its time ÷ ours), or None where there is no goal.
        resample: how scores become labels.
        labels: "patches" (20×20 pixels of one label, one in 22 ignored) or "noise" (each pixel its own).
        keep: probability with which the loss keeps a cell of ``cell``×``cell`` pixels.
        features: channels of the skip, or of what the 1×1 convolution reads.
        window: side of the max pool's windows, which are two elements apart.
        gradients: whether the backward pass is measured too.
        quick: whether ``--quick`` measures it.
        images: how many.
        dtype: of the scores and features.
        label_type: of the labels.
        width: of the network's body.
        body: of the network, where there are several.
        large: takes minutes or gigabytes on a CPU and is measured on GPUs only, unless asked for.
        apart: measured only where ``--only`` names it, its time alone and not its memory.
        cold: each call finds its caches overwritten, as on a GPU every call does.
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
    window: int = 2
    gradients: bool = False
    quick: bool = False
    images: int = 1
    dtype: torch.dtype = torch.float32
    label_type: torch.dtype = torch.int64
    width: float = 1.0
    body: str = "VGG16"
    large: bool = False
    apart: bool = False
    cold: bool = False

    def __str__(self) -> str:
        return self.name

    def contenders(self, quick: bool = False) -> list[str]:
        """ "ours" and the names of the rivals; compiling takes longer than a quick run."""
        return ["ours", *(name for name in self.rivals if not (quick and name.startswith("compiled")))]


def chosen(device: str, quick: bool = False, only: str = "", large: bool = False) -> list[Case]:
    """The cases to measure on a device; `large`: on a CPU too, those that take minutes or gigabytes there.

    Raises:
        ValueError: no case there holds ``only`` in its name; the message lists those there are.
    """
    there = [case for case in CASES if device != "cpu" or large or not case.large]
    wanted = [case for case in there if only in case.name and (only or not case.apart)]
    found = [case for case in wanted if case.quick or not quick]
    if not found:
        raise ValueError(f"no case holds {only!r}; there are: {'; '.join(case.name for case in there)}")
    return found


LOSS, ARGMAX, ADD = "upsample_cross_entropy", "upsample_argmax", "upsample_add"
CONFUSION, CONV, POOL, MODELS = "confusion_matrix", "conv1x1", "max_pool2d", "models"
BODIES, DENSITY, ELISION, PATCHES = "bodies", "density", "elision", "patches"
NETWORKS = (MODELS, BODIES, DENSITY, ELISION, PATCHES)
VOC = Shape(21, (70, 70), (500, 500))
VOC_512 = Shape(21, (64, 64), (512, 512))
ADE = Shape(150, (128, 128), (512, 512))
CITY = Shape(19, (128, 256), (1024, 2048))
CITY_4 = Shape(19, (256, 512), (1024, 2048))
RAGGED = Shape(21, (47, 63), (375, 499))
SMALL = Shape(2, (4, 4), (32, 32))
SKIP = Shape(21, (34, 34), (70, 70))
SKIP_4 = Shape(21, (16, 16), (34, 34))
FC7 = Shape(1024, (22, 22), (22, 22))
CAFFE = Resample.deconv(8, 31)
EAGER: dict[str, float | None] = {"interpolate": None}
COMPILED: dict[str, float | None] = EAGER | {"compiled interpolate": None}
BF16, UINT8 = torch.bfloat16, torch.uint8


def _in_other_forms(*names: str) -> dict[str, float | None]:
    """Rivals, and ours, with their input in channels_last and in bf16."""
    return {f"{name}, {form}": None for name in (*names, "ours") for form in ("channels_last", "bf16")}


def _losses() -> list[Case]:
    forms = _in_other_forms("interpolate")
    goals = {"interpolate": 60, "dense deconvolution": None, "compiled interpolate": 60, **forms}
    caffe: dict[str, float | None] = EAGER | {"dense deconvolution": None}
    in_16s, in_32s = Shape(21, (34, 34), (500, 500)), Shape(21, (16, 16), (500, 500))
    cases = [
        Case("loss 21×500×500 deconv(8, 31)", LOSS, VOC, goals, CAFFE, quick=True),
        Case("loss 21×500×500 deconv(8, 31), noise", LOSS, VOC, EAGER, CAFFE, labels="noise"),
        Case("loss 21×500×500 deconv(8, 31), uint8", LOSS, VOC, EAGER, CAFFE, label_type=UINT8),
        Case("loss 21×500×500 deconv(16, 27)", LOSS, in_16s, caffe, Resample.deconv(16, 27)),
        Case("loss 21×500×500 deconv(32, 19)", LOSS, in_32s, caffe, Resample.deconv(32, 19)),
        Case("loss 21×500×500 half_pixel", LOSS, VOC, EAGER),
        Case("loss 21×375×499 half_pixel", LOSS, RAGGED, EAGER),
        Case("loss 2×32×32 half_pixel", LOSS, SMALL, EAGER),
        Case("loss 150×512×512 half_pixel", LOSS, ADE, EAGER | forms),
        Case("loss 19×1024×2048 half_pixel", LOSS, CITY, COMPILED),
        Case("loss 16 × 21×512×512 half_pixel", LOSS, VOC_512, EAGER, images=16),
        Case("city: loss 8 × 19×1024×2048 half_pixel", LOSS, CITY, COMPILED, images=8, large=True),
        Case("city, uint8", LOSS, CITY, EAGER, images=8, label_type=UINT8, large=True),
        Case("city, bf16", LOSS, CITY, EAGER, images=8, dtype=BF16, large=True),
        Case("city, factor 4", LOSS, CITY_4, EAGER, images=8, large=True),
        Case("ade: loss 16 × 150×512×512 half_pixel", LOSS, ADE, EAGER, images=16, large=True),
    ]
    for cell, keep in ((32, 0.5), (32, 0.25), (8, 0.5), (8, 0.25), (1, 0.25)):
        drawn = "pixels" if cell == 1 else f"{cell}×{cell} cells"
        name = f"loss 21×500×500 deconv(8, 31), {keep:g} of the {drawn}"
        rivals = EAGER | {"all pixels": None}
        cases.append(Case(name, LOSS, VOC, rivals, CAFFE, keep=keep, cell=cell, quick=cell == 32))
    return cases


def _argmaxes() -> list[Case]:
    forms = _in_other_forms("interpolate")
    goals = {"interpolate": 60, "dense deconvolution": None, "compiled interpolate": None, **forms}
    return [
        Case("argmax 21×500×500 deconv(8, 31)", ARGMAX, VOC, goals, CAFFE, quick=True),
        Case("argmax 150×512×512 half_pixel", ARGMAX, ADE, EAGER),
        Case("argmax 19×1024×2048 half_pixel", ARGMAX, CITY, EAGER),
        Case("argmax 8 × 19×1024×2048 half_pixel", ARGMAX, CITY, COMPILED, images=8, large=True),
    ]


def _others() -> list[Case]:
    eager: dict[str, float | None] = {"eager": None}
    made: dict[str, float | None] = {"compiled eager": None}
    forms = _in_other_forms("eager")
    counts: dict[str, float | None] = {"bincount": 20, "compiled bincount": None}
    from_scores: dict[str, float | None] = {"interpolate, argmax, bincount": None}
    score, wide = Shape(21, (22, 22), (22, 22)), Shape(4096, (16, 16), (16, 16))
    score_16 = Shape(21, (64, 64), (64, 64))
    return [
        Case("skip step 512→21×70×70", ADD, SKIP, {"eager": 2.5} | made | forms, features=512, quick=True),
        Case(
            "skip step 512→21×70×70, gradients", ADD, SKIP, eager | made | forms, features=512, gradients=True
        ),
        Case("skip step 512→21×34×34", ADD, SKIP_4, eager, features=512),
        Case("skip step 256→21×70×70", ADD, SKIP, eager, features=256),
        Case("skip step 16 × 256→21×70×70", ADD, SKIP, eager, features=256, images=16, large=True),
        Case("confusion of label maps 21×500×500", CONFUSION, VOC, counts, quick=True),
        Case("confusion of scores 21×500×500 deconv(8, 31)", CONFUSION, VOC, from_scores, CAFFE, quick=True),
        Case("confusion of scores 8 × 19×1024×2048", CONFUSION, CITY, from_scores, images=8, large=True),
        Case(
            "1×1, ReLU, dropout 1024→1024×22×22, gradients",
            CONV,
            FC7,
            eager | made | forms,
            features=1024,
            gradients=True,
        ),
        Case("1×1, ReLU, dropout 4096→21×22×22", CONV, score, eager, features=4096),
        Case(
            "1×1, ReLU, dropout 16 × 512→21×64×64", CONV, score_16, eager, features=512, images=16, large=True
        ),
        Case(
            "1×1, ReLU, dropout 16 × 4096→4096×16×16", CONV, wide, eager, features=4096, images=16, large=True
        ),
    ]


def _pools() -> list[Case]:
    """Pools of the bodies, of images of 500×500 that are padded by 100: VGG16's first, and AlexNet's first."""
    eager: dict[str, float | None] = {"eager": None}
    forms = eager | {"compiled eager": None} | _in_other_forms("eager")
    vgg, alexnet = Shape(16, (698, 698), (349, 349)), Shape(96, (173, 173), (86, 86))
    wide = Shape(64, (698, 698), (349, 349))
    return [
        Case("ReLU, max pool 2×2 of 16×698×698", POOL, vgg, forms, quick=True),
        Case("ReLU, max pool 2×2 of 16×698×698, gradients", POOL, vgg, forms, gradients=True),
        Case("ReLU, max pool 3×3 of 96×173×173, gradients", POOL, alexnet, eager, window=3, gradients=True),
        Case(
            "ReLU, max pool 2×2 of 8 × 64×698×698, gradients",
            POOL,
            wide,
            forms,
            gradients=True,
            images=8,
            large=True,
        ),
    ]


def _models() -> list[Case]:
    parts = ("trunk alone", "stock trunk alone", "head alone", "stock head alone")
    stock: dict[str, float | None] = dict.fromkeys(("stock modules", *parts))
    made = stock | {"compiled stock modules": None}
    both = stock | {"ours, channels_last": None, "stock modules, channels_last": None}
    image, thumbnail = Shape(21, (500, 500), (500, 500)), Shape(21, (224, 224), (224, 224))
    return [
        Case("FCN-8s at a quarter of the width, 500×500, inference", MODELS, image, both, width=0.25),
        Case(
            "FCN-8s at a quarter of the width, 500×500, step",
            MODELS,
            image,
            both,
            width=0.25,
            gradients=True,
        ),
        Case("FCN-8s, 224×224, inference", MODELS, thumbnail, made, large=True),
        Case("FCN-8s, 224×224, step", MODELS, thumbnail, made, gradients=True, large=True),
        Case("FCN-8s, 8 × 500×500, inference", MODELS, image, both, images=8, large=True),
        Case("FCN-8s, 8 × 500×500, step", MODELS, image, both, images=8, gradients=True, large=True),
    ]


def _bodies() -> list[Case]:
    """FCN-8s on each body at its own width; on VGG16, where that takes seconds on a CPU, at a quarter of it too."""
    image = Shape(21, (500, 500), (500, 500))
    stock: dict[str, float | None] = {"stock modules": 1.0}
    vgg = stock | {"compiled stock modules": None, "ours, elide": None}
    narrow = "VGG16 at a quarter of the width"
    return [
        Case(f"FCN-8s on {narrow}, 500×500, predict", BODIES, image, vgg, width=0.25),
        *(
            Case(f"FCN-8s on {body}, 500×500, predict", BODIES, image, stock, body=body)
            for body in ("AlexNet", "CaffeNet", "GoogLeNet")
        ),
        Case("FCN-8s on VGG16, 500×500, predict", BODIES, image, vgg, large=True),
    ]


def _densities() -> list[Case]:
    rivals: dict[str, float | None] = {"rarefied": None, "shift-and-stitch": None, "stride 32": None}
    image = Shape(21, (96, 96), (96, 96))
    return [
        Case(
            f"VGG16 at an eighth of the width, 96×96, scores {to} pixels apart",
            DENSITY,
            image,
            rivals,
            Resample.deconv(to),
            width=0.125,
        )
        for to in (16, 8)
    ]


def _elisions() -> list[Case]:
    """FCN-8s at a quarter of the width, and at its own, which on a CPU takes minutes."""
    rivals = {"plain": 1.35, "trunk alone, elided": None, "trunk alone, plain": None}
    cases = []
    for width in (0.25, 1.0):
        for side in (500, 375, 224):
            shape = Shape(21, (side, side), (side, side))
            size = "" if width == 1 else " at a quarter of the width"
            for kind in ("inference", "step"):
                case = Case(f"elide FCN-8s{size}, {side}×{side}, {kind}", ELISION, shape, rivals, width=width)
                cases.append(replace(case, gradients=kind == "step", large=width == 1))
    return cases


def _patches() -> list[Case]:
    """Grids of scores, n×n of them a stride of 32 pixels apart, as large as two minutes allow."""
    rivals: dict[str, float | None] = {"crops, batched": None, "crops, one by one": None}
    cases = []
    for body, width, part, sides in (
        ("AlexNet", 0.25, "a quarter", (1, 2, 4, 8, 10)),
        ("VGG16", 0.0625, "a sixteenth", (1, 2, 4)),
    ):
        for pass_ in ("forward", "forward and backward"):
            for n in sides:
                name = f"patches: {body} at {part} of the width, {n}×{n} scores, {pass_}"
                shape, gradients = Shape(21, (n, n), (n, n)), pass_ != "forward"
                cases.append(
                    Case(
                        name, PATCHES, shape, rivals, gradients=gradients, width=width, body=body, apart=True
                    )
                )
    return cases


def _cold() -> list[Case]:
    """What has a goal, and memory beside it that may have left the caches."""
    goals = [
        case for case in (*_losses(), *_argmaxes(), *_others()) if case.quick and any(case.rivals.values())
    ]
    return [
        replace(
            case,
            name=f"{case.name}, cold",
            cold=True,
            quick=False,
            rivals=dict.fromkeys(list(case.rivals)[:1]),
        )
        for case in goals
    ]


CASES = [
    *_losses(),
    *_argmaxes(),
    *_others(),
    *_cold(),
    *_pools(),
    *_models(),
    *_bodies(),
    *_densities(),
    *_elisions(),
    *_patches(),
]
OPERATION = {case.name: case.operation for case in CASES}
