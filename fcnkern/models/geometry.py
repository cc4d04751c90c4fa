"""Where a network's outputs lie on its input: coordinate maps, crop offsets, receptive fields and sizes.

`fcnkern.models.tracing` finds the layers of a module, `fcnkern.models.alignment` what a head needs to know. The rule
is Caffe's `coord_map`: each layer maps input coordinates to output coordinates by `scale * x + shift`
(convolution and pooling: scale 1/s, shift (pad - (k-1)/2)/s; transposed convolution: scale s, shift (k-1)/2 - pad).
Two blobs line up where the composed map between them is a pure shift; minus that shift is the crop offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class CoordinateMap(NamedTuple):
    """Input coordinate x -> output coordinate `scale * x + shift`, exactly."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def then(self, outer: CoordinateMap) -> CoordinateMap:
        """The map that applies `self` first and `outer` to its result."""
        return CoordinateMap(outer.scale * self.scale, outer.scale * self.shift + outer.shift)

    def inverse(self) -> CoordinateMap:
        return CoordinateMap(1 / self.scale, -self.shift / self.scale)


class Layer(NamedTuple):
    """One spatial layer: `kernel`, `stride` and `pad` in pixels; `up` marks a transposed convolution.

    `ceil` rounds the output size up, as Caffe's pooling does; a window that would begin behind the input is left
    out, which is PyTorch's rule, and Caffe's where it pads. `extra` is padding at the end beyond `pad`; of a
    transposed convolution, outputs at the end beyond those without padding.
    """

    kernel: int
    stride: int = 1
    pad: int = 0
    up: bool = False
    ceil: bool = False
    dilation: int = 1
    extra: int = 0

    @property
    def span(self) -> int:
        """Pixels from the first to the last tap of the kernel."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def map(self) -> CoordinateMap:
        half = Fraction(self.span - 1, 2)
        if self.up:
            return CoordinateMap(Fraction(self.stride), half - self.pad)
        return CoordinateMap(Fraction(1, self.stride), (self.pad - half) / self.stride)

    def output_size(self, size: int) -> int:
        """Side of the output, for an input of `size` pixels; less than one where the kernel does not fit."""
        if self.up:
            return (size - 1) * self.stride + self.span - 2 * self.pad + self.extra
        room = size + 2 * self.pad + self.extra - self.span
        if not self.ceil:
            return room // self.stride + 1
        out = -(-room // self.stride) + 1
        return out - ((out - 1) * self.stride >= size + self.pad)


def bilinear_deconv(factor: int) -> Layer:
    """The transposed convolution that upsamples by `factor`: kernel 2f - f%2, stride f, no padding."""
    return Layer(2 * factor - factor % 2, factor, up=True)


def coordinate_map(layers: Sequence[Layer]) -> CoordinateMap:
    """The map from the input of the first layer to the output of the last."""
    composed = CoordinateMap()
    for layer in layers:
        composed = composed.then(layer.map)
    return composed


def crop_offset(source: Sequence[Layer], reference: Sequence[Layer]) -> int:
    """Where to crop the output of `source` so that it lines up with the output of `reference`.

    Both start at the same blob; an empty `reference` is that blob itself. The crop is
    `source[offset : offset + size(reference)]` on each axis, from the top left, not centred.

    Raises:
        ValueError: the two outputs have different strides, or are a fraction of a pixel apart, or the source starts
            after the reference, so that no crop aligns them.
    """
    between = coordinate_map(source).inverse().then(coordinate_map(reference))
    if between.scale != 1:
        raise ValueError(
            f"source and reference have different strides: one pixel of the source is {between.scale} "
            "pixels of the reference"
        )
    offset = -between.shift
    if offset < 0 or offset.denominator != 1:
        where = "before the first pixel" if offset < 0 else "between two pixels"
        raise ValueError(
            f"the crop offset must be a whole number >= 0, it is {offset}, {where}; change the pad or the parity "
            "of the upsampling kernel"
        )
    return int(offset)


def receptive_field(layers: Sequence[Layer]) -> tuple[int, int]:
    """Receptive field and stride, in input pixels, of one output of a chain of convolutions and poolings.

    Raises:
        ValueError: the chain contains a transposed convolution.
    """
    field, stride = 1, 1
    for layer in layers:
        if layer.up:
            raise ValueError(
                "a receptive field is defined here for convolutions and poolings, not for upsampling"
            )
        field += (layer.span - 1) * stride
        stride *= layer.stride
    return field, stride


def output_size(layers: Sequence[Layer], size: int) -> int:
    """Side of the output for an input of `size` pixels."""
    for layer in layers:
        size = layer.output_size(size)
    return size


def vgg16_layers(until: str = "fc7", *, pad: int = 100) -> list[Layer]:
    """The layers of the fully convolutional VGG16 up to `until`: "pool1" ... "pool5", "fc6" or "fc7".

    `pad` is the padding of conv1_1 (the paper's networks: 100). Source: the authors' net.py.

    Raises:
        ValueError: an unknown `until`.
    """
    conv, pool = Layer(3, 1, 1), Layer(2, 2, ceil=True)
    layers: list[Layer] = []
    for stage, convs in enumerate((2, 2, 3, 3, 3), start=1):
        layers += [conv] * convs + [pool]
        if stage == 1:
            layers[0] = Layer(3, 1, pad)
        if until == f"pool{stage}":
            return layers
    tail = {"fc6": [Layer(7)], "fc7": [Layer(7), Layer(1)]}
    if until not in tail:
        raise ValueError(f"until must be 'pool1' to 'pool5', 'fc6' or 'fc7', got {until!r}")
    return layers + tail[until]
