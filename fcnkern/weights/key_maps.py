"""What the layers of the paper's networks are called by Caffe, torchvision, pytorch-fcn and this package.

Caffe's names are those of the BVLC model zoo and of the authors' fcn.berkeleyvision.org; every table is written in
them. A shape in a table is that of the weight as a convolution: (out, in / groups, height, width).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

Naming = Literal["fcnkern", "caffe", "pytorch-fcn", "torchvision"]
NAMINGS: tuple[Naming, ...] = get_args(Naming)

HEADS = (
    "score_fr", "score_pool4", "score_pool3", "upscore", "upscore2", "upscore16", "upscore8", "upscore_pool4",
)  # fmt: skip
"""Layers of the FCN heads, called the same by all who have them, with one channel per class."""

AT_ONCE_SCALES = {"scale_pool4": 0.01, "scale_pool3": 0.0001}
"""Constant Scale layers of Caffe's FCN-8s at once; part of the network, not of the weights, everywhere else."""


EARLY = {"conv1_1_bgrd": "conv1_1"}
"""The first layer of the authors' early fusion, on colour and depth, and that of VGG16 on colour alone."""


def module_name(layer: str) -> str:
    """The module of this package that holds the layer which Caffe calls `layer`: a path of attributes."""
    return EARLY.get(layer, layer).replace("/", ".")


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: Caffe's.
        shape: of the weight, as a convolution.
        torchvision, pytorch_fcn: what it is called there, or None where there is no such layer.
        dense: fully connected in the classifier: its weight may come as a matrix (out, in * height * width), and it
            may be absent from files that hold the convolutions only.
        first: it takes the images, of any number of channels; the shape has three.
    """

    name: str
    shape: tuple[int, int, int, int]
    torchvision: str | None = None
    pytorch_fcn: str | None = None
    dense: bool = False
    first: bool = False

    @property
    def matrix(self) -> tuple[int, int]:
        """The shape of the weight as a matrix."""
        out, channels, height, width = self.shape
        return out, channels * height * width

    def called(self, naming: Naming) -> str | None:
        """Its name there, or None."""
        names = {
            "fcnkern": module_name(self.name),
            "caffe": self.name,
            "pytorch-fcn": self.pytorch_fcn,
            "torchvision": self.torchvision,
        }
        return names[naming]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of that shape is this layer's."""
        if self.first and len(shape) == 4:
            shape = (shape[0], self.shape[1], *shape[2:])
        return shape == self.shape or (self.dense and shape == self.matrix)

    def widths(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """The least and the largest width of the network at which a weight of that shape can be this layer's.

        Its kernel tells, and its outputs, which are rounded to multiples of four. The least is larger where there is
        no such width.
        """
        matrix = self.dense and len(shape) == 2 and shape[1] % prod(self.shape[2:]) == 0
        if shape[2:] != self.shape[2:] and not matrix:
            return 1.0, 0.0
        out, full = shape[0], self.shape[0]
        return (out - 2) / full if out > 4 else 0.0, (out + 2) / full


@dataclass(frozen=True)
class Architecture:
    """A network of the paper up to its classifier. `absent` says why a naming has no such network."""

    name: str
    layers: tuple[Layer, ...]
    absent: tuple[tuple[Naming, str], ...] = ()

    @property
    def namings(self) -> tuple[Naming, ...]:
        return tuple(naming for naming in NAMINGS if naming not in dict(self.absent))

    def named(self, naming: Naming) -> dict[str, Layer]:
        """The layers by their names there."""
        return {name: layer for layer in self.layers if (name := layer.called(naming)) is not None}

    def is_scaled(self, shapes: Mapping[str, tuple[int, ...]], naming: Naming) -> bool:
        """Whether weights of those shapes, by their names there, are this network's at another width than 1."""
        named = self.named(naming).items()
        spans = [
            layer.widths(shapes[key]) for name, layer in named if (key := f"{name}.weight") in shapes
        ] or [(1.0, 1.0)]
        least, most = max(low for low, _ in spans), min(high for _, high in spans)
        return least <= most and not least <= 1 <= most


def _vgg16() -> Iterator[Layer]:
    """torchvision counts convolutions, ReLUs and pools in one sequence."""
    index, channels = 0, 3
    for stage, (out, convs) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for name in (f"conv{stage}_{number}" for number in range(1, convs + 1)):
            yield Layer(name, (out, channels, 3, 3), f"features.{index}", name, first=index == 0)
            index, channels = index + 2, out
        index += 1
    yield Layer("fc6", (4096, 512, 7, 7), "classifier.0", "fc6", dense=True)
    yield Layer("fc7", (4096, 4096, 1, 1), "classifier.3", "fc7", dense=True)
    yield Layer("fc8", (1000, 4096, 1, 1), "classifier.6", dense=True)


_CAFFENET = (
    Layer("conv1", (96, 3, 11, 11), first=True),
    Layer("conv2", (256, 48, 5, 5)),
    Layer("conv3", (384, 256, 3, 3)),
    Layer("conv4", (384, 192, 3, 3)),
    Layer("conv5", (256, 192, 3, 3)),
    Layer("fc6", (4096, 256, 6, 6), dense=True),
    Layer("fc7", (4096, 4096, 1, 1), dense=True),
    Layer("fc8", (1000, 4096, 1, 1), dense=True),
)
_ALEXNET = (
    Layer("conv1", (64, 3, 11, 11), "features.0", first=True),
    Layer("conv2", (192, 64, 5, 5), "features.3"),
    Layer("conv3", (384, 192, 3, 3), "features.6"),
    Layer("conv4", (256, 384, 3, 3), "features.8"),
    Layer("conv5", (256, 256, 3, 3), "features.10"),
    Layer("fc6", (4096, 256, 6, 6), "classifier.1", dense=True),
    Layer("fc7", (4096, 4096, 1, 1), "classifier.4", dense=True),
    Layer("fc8", (1000, 4096, 1, 1), "classifier.6", dense=True),
)
# Inputs, then outputs of 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj.
_INCEPTION = {
    "3a": (192, 64, 96, 128, 16, 32, 32), "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64), "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64), "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128), "5b": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


def _googlenet() -> Iterator[Layer]:
    yield Layer("conv1/7x7_s2", (64, 3, 7, 7), first=True)
    yield Layer("conv2/3x3_reduce", (64, 64, 1, 1))
    yield Layer("conv2/3x3", (192, 64, 3, 3))
    for block, (inputs, one, reduce3, three, reduce5, five, project) in _INCEPTION.items():
        name = f"inception_{block}"
        yield Layer(f"{name}/1x1", (one, inputs, 1, 1))
        yield Layer(f"{name}/3x3_reduce", (reduce3, inputs, 1, 1))
        yield Layer(f"{name}/3x3", (three, reduce3, 3, 3))
        yield Layer(f"{name}/5x5_reduce", (reduce5, inputs, 1, 1))
        yield Layer(f"{name}/5x5", (five, reduce5, 5, 5))
        yield Layer(f"{name}/pool_proj", (project, inputs, 1, 1))
    yield Layer("loss3/classifier", (1000, 1024, 1, 1), dense=True)


_NO_FCN: tuple[Naming, str] = ("pytorch-fcn", "pytorch-fcn has VGG16 only")
ARCHITECTURES: dict[str, Architecture] = {
    network.name: network
    for network in (
        Architecture("vgg16", tuple(_vgg16())),
        Architecture(
            "caffenet",
            _CAFFENET,
            (
                _NO_FCN,
                ("torchvision", "torchvision's AlexNet is another network: one tower, no LRN, other widths"),
            ),
        ),
        Architecture("alexnet", _ALEXNET, (_NO_FCN,)),
        Architecture(
            "googlenet",
            tuple(_googlenet()),
            (
                _NO_FCN,
                (
                    "torchvision",
                    "torchvision's GoogLeNet is another network: BatchNorm, no LRN, no 5x5 convolution",
                ),
            ),
        ),
    )
}
"""The bodies of the paper: VGG16, CaffeNet (two groups), torchvision's one-tower AlexNet, BVLC GoogLeNet."""


_WRAPPERS = ("module.", "net.", "body.")


def without_wrapper(key: str) -> str:
    """A parameter's name without DataParallel's "module." and this package's "net." and "body." in front."""
    for prefix in _WRAPPERS:
        key = key.removeprefix(prefix)
    return key


def parameter_names(keys: Iterable[str], layers: Iterable[str]) -> dict[str, str]:
    """What this package calls each of the parameters `keys` of a file, for a network with these `layers`.

    Of all namings that of the table is taken under which the file has most of `layers`; names that are in no table
    stay as they are, but for Caffe's slashes.
    """
    wanted = set(layers)
    plain = {key: _within(key, wanted).rpartition(".") for key in keys}
    present = {layer for layer, _, _ in plain.values()}

    def known(table: dict[str, str]) -> int:
        return sum(ours in wanted and theirs in present for theirs, ours in table.items())

    table = max(_tables(), key=known)
    return {key: f"{table.get(layer, module_name(layer))}.{kind}" for key, (layer, _, kind) in plain.items()}


def _within(key: str, layers: Collection[str]) -> str:
    """`without_wrapper`, but no more of the name is taken off than leaves one of `layers`, which may begin so too."""
    for prefix in _WRAPPERS:
        if key.rpartition(".")[0] in layers:
            break
        key = key.removeprefix(prefix)
    return key


def _tables() -> Iterator[dict[str, str]]:
    """Each network's names in each naming, to this package's."""
    for network in ARCHITECTURES.values():
        for naming in network.namings:
            yield {theirs: module_name(layer.name) for theirs, layer in network.named(naming).items()}
