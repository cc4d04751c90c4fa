"""Find where the feature maps of any module lie on its input, by running it once without computing anything.

The module runs on tensors of PyTorch's meta device, and every operation on them is seen below the module system:
Python control flow, functional calls and in-place operations make no difference. What each operation does to
coordinates is Caffe's `coord_map` (see `fcnkern.models.geometry`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fcnkern.models.body import UnknownTapError
from fcnkern.models.geometry import CoordinateMap, Layer

PROBE = (1056, 1184)
"""Height and width of the image to trace with: unequal, so that a transposition shows, and larger than most
receptive fields, so that modules that do not pad run too."""

aten = torch.ops.aten


class Path(NamedTuple):
    """What lies between the image and a feature map along one axis.

    Attributes:
        layers: the spatial layers on one way from the image; every other way has the same coordinates and sizes.
        map: image coordinate -> coordinate of the feature map.
        field: receptive field in pixels, of the widest way; None behind an upsampling layer.
    """

    layers: tuple[Layer, ...] = ()
    map: CoordinateMap = CoordinateMap()
    field: int | None = 1

    @property
    def stride(self) -> int:
        """Image pixels from one value to the next; raises ValueError where that is no whole number."""
        stride = 1 / self.map.scale
        if stride.denominator != 1:
            raise ValueError(f"a stride of {stride} pixels of the image is no whole number")
        return int(stride)

    def then(self, layer: Layer) -> Path:
        """The path that goes on through `layer`."""
        if layer == Layer(1):
            return self
        wider = (
            None if self.field is None or layer.up else self.field + int((layer.span - 1) / self.map.scale)
        )
        return Path((*self.layers, layer), self.map.then(layer.map), wider)

    def sizes(self, size: int) -> int:
        """Side of the feature map for an image of `size` pixels, or 0 where some layer has no output."""
        for layer in self.layers:
            size = layer.output_size(size)
            if size < 1:
                return 0
        return size


class Traced(NamedTuple):
    """A feature map: its channels, and its `Path` along the rows and along the columns of the image."""

    channels: int
    rows: Path
    columns: Path


def trace(
    module: nn.Module, features: Callable[[nn.Module, Tensor], Mapping[str, Tensor]], in_channels: int = 3
) -> dict[str, Traced]:
    """Where named feature maps of `module` lie on its input.

    Args:
        module: any module; it is run in evaluation mode and left as it was.
        features: called with the module and an image, gives the feature maps by name.
        in_channels: of the image.

    Raises:
        ValueError: the module does not run on an image of 1056x1184 without data; or a feature map has no place on
            the image: it went through an operation that has none (flattening, a resize), or it joins maps that
            lie apart. The message names the feature map and the operation.
    """
    recorder = _Recorder()
    kinds = [each.dtype for each in module.parameters() if each.is_floating_point()]
    probe = torch.empty(1, in_channels, *PROBE, device="meta", dtype=kinds[0] if kinds else None)
    recorder.places[probe] = _Place(Path(), Path())
    try:
        # In inference mode the recorder would see a convolution before it is taken apart.
        with torch.inference_mode(False), torch.no_grad(), recorder:
            found = run_on_meta(module, features, probe)
    except UnknownTapError:
        raise
    except Exception as error:  # whatever the user's code raises
        size = f"1x{in_channels}x{PROBE[0]}x{PROBE[1]}"
        text = " ".join(str(error).split()[:60])
        raise ValueError(
            f"{type(module).__name__} does not run on an image of {size} on the meta device, so its geometry "
            f"cannot be traced: {type(error).__name__}: {text}"
        ) from error
    return {name: recorder.traced(name, value) for name, value in found.items()}


class _WithFeatures(nn.Module):
    """Makes `features` a forward, for `functional_call`."""

    def __init__(
        self, module: nn.Module, features: Callable[[nn.Module, Tensor], Mapping[str, Tensor]]
    ) -> None:
        super().__init__()
        self.module, self.features = module, features

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        return self.features(self.module, x)


def run_on_meta(
    module: nn.Module, features: Callable[[nn.Module, Tensor], Mapping[str, Tensor]], probe: Tensor
) -> Mapping[str, Tensor]:
    """What `features` finds in `module`, in evaluation mode, for a probe on the meta device."""
    wrapped = _WithFeatures(module, features)
    modes = [(each, each.training) for each in module.modules()]
    tensors = [*wrapped.named_parameters(), *wrapped.named_buffers()]
    module.eval()
    try:
        return torch.func.functional_call(
            wrapped, {name: value.detach().to("meta") for name, value in tensors}, (probe,)
        )
    finally:
        for each, training in modes:
            each.training = training


class _Place(NamedTuple):
    """Where a tensor of N,C,H,W (or more dimensions before H,W) lies."""

    rows: Path
    columns: Path


class _Everywhere(NamedTuple):
    """A value of the whole image, such as a global average: it lies nowhere and fits everywhere."""


class _Lost(NamedTuple):
    """A tensor that depends on the image but has no place on it, and why."""

    reason: str


_State = _Place | _Everywhere | _Lost
_SAME_PLACE = {
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten.native_group_norm,
    aten.native_dropout,
    aten.hardswish,
    aten.hardswish_,
    aten.mish_,
    aten._prelu_kernel,
    aten.channel_shuffle,
    torch.ops.fcnkern.conv1x1,
}
"""Operations whose result lies where their first argument does."""
_KEEPS_PLACE_AND_SIZE = {
    aten.view,
    aten._unsafe_view,
    aten.reshape,
    aten.unsqueeze,
    aten.squeeze,
    aten.permute,
    aten.transpose,
    aten.split,
    aten.split_with_sizes,
    aten.slice,
    aten.select,
    aten.expand,
    aten.detach,
    aten.alias,
    aten.clone,
    aten._to_copy,
    aten.avg_pool3d,  # across channels: F.local_response_norm
    aten.constant_pad_nd,
}
_PADS = {aten.constant_pad_nd, aten.reflection_pad2d, aten.replication_pad2d}
_GLOBAL = {aten.mean, aten._adaptive_avg_pool2d, aten.amax, aten.adaptive_max_pool2d}


class _Recorder(TorchDispatchMode):
    """Follows the places of tensors through every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.places = torch.utils.weak.WeakIdKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch's default imports its compiler here, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        placed = [each for each in inputs if each in self.places]
        if placed:
            for result in tree_leaves(out):
                if isinstance(result, Tensor):
                    self.places[result] = self._place(func, args, placed, result)
        return out

    def traced(self, name: str, value: Any) -> Traced:
        """The place of a feature map, or ValueError."""
        state = self.places.get(value) if isinstance(value, Tensor) else None
        if isinstance(state, _Place) and value.dim() == 4:
            return Traced(value.shape[1], state.rows, state.columns)
        if isinstance(state, _Lost):
            reason = state.reason
        elif isinstance(value, Tensor):
            reason = f"a tensor of shape {tuple(value.shape)} for the image as a whole"
        else:
            reason = f"no tensor but a {type(value).__name__}"
        raise ValueError(f"tap {name!r} has no place on the image: {reason}")

    def _place(self, func: Any, args: Sequence[Any], inputs: list[Tensor], out: Tensor) -> _State:
        states = [self.places[each] for each in inputs]
        for state in states:
            if isinstance(state, _Lost):
                return state
        operation = func.overloadpacket
        first = states[0]
        if (
            operation in _GLOBAL
            and isinstance(first, _Place)
            and tuple(out.shape[-2:]) in ((1, 1), out.shape[:2])
        ):
            return _Everywhere()
        if all(isinstance(state, _Everywhere) for state in states):
            return _Everywhere()
        layers = _layers(operation, args)
        if layers is not None and isinstance(first, _Place):
            return _through(first, layers, inputs[0], out, func)
        if operation is aten.cat or torch.Tag.pointwise in func.tags:
            return _merge([state for state in states if isinstance(state, _Place)], func)
        kept = operation in _SAME_PLACE or operation in _KEEPS_PLACE_AND_SIZE
        if kept and isinstance(first, _Place) and out.shape[-2:] == inputs[0].shape[-2:]:
            return first
        return _Lost(f"it comes through {func}, for which no coordinates are known")


def _through(place: _Place, layers: tuple[Layer, Layer], x: Tensor, out: Tensor, func: Any) -> _State:
    sizes = tuple(layer.output_size(size) for layer, size in zip(layers, x.shape[-2:], strict=True))
    if sizes != tuple(out.shape[-2:]):
        return _Lost(f"{func} makes {tuple(out.shape[-2:])} pixels of {tuple(x.shape[-2:])}, not {sizes}")
    return _Place(place.rows.then(layers[0]), place.columns.then(layers[1]))


def _merge(places: list[_Place], func: Any) -> _State:
    """The place of what is joined or added: all must lie on the same grid; the widest field counts."""
    merged: list[Path] = []
    for axis in (0, 1):
        paths = [place[axis] for place in places]
        for path in paths[1:]:
            apart = (path.map.shift - paths[0].map.shift) / paths[0].map.scale
            if path.map.scale != paths[0].map.scale or apart:
                strides = " and ".join(str(1 / each.map.scale) for each in (paths[0], path))
                return _Lost(
                    f"{func} joins maps that lie {abs(apart)} pixels of the image apart (strides {strides}); "
                    "padding or kernels of another parity would align them"
                )
        fields = [path.field for path in paths]
        widest = None if None in fields else max(field for field in fields if field is not None)
        merged.append(paths[0]._replace(field=widest))
    return _Place(*merged)


def _layers(operation: Any, args: Sequence[Any]) -> tuple[Layer, Layer] | None:
    """What an operation does along rows and columns, or None where it is no layer."""
    if operation is aten.convolution and args[1].dim() == 4:
        return _convolution(args)
    if operation in (aten.max_pool2d, aten.max_pool2d_with_indices):
        kernel, stride, pad, dilation, ceil = _defaults(args[1:], ([], 0, 1, False), 5)
        return _pool(kernel, stride, pad, dilation, ceil)
    if operation is aten.avg_pool2d:
        kernel, stride, pad, ceil = _defaults(args[1:], ([], 0, False), 4)
        return _pool(kernel, stride, pad, 1, ceil)
    if operation in _PADS and len(args[1]) == 4:
        left, right, top, bottom = args[1]
        return Layer(1, pad=top, extra=bottom - top), Layer(1, pad=left, extra=right - left)
    return None


def _convolution(args: Sequence[Any]) -> tuple[Layer, Layer]:
    weight, stride, pad, dilation, up, extra = args[1], *args[3:8]
    settings = (list(weight.shape[2:]), stride, pad, up, False, dilation, extra if up else 0)
    return _both_axes(*settings)


def _pool(kernel: Any, stride: Any, pad: Any, dilation: Any, ceil: bool) -> tuple[Layer, Layer]:
    return _both_axes(kernel, stride or kernel, pad, False, ceil, dilation)


def _both_axes(*settings: Any) -> tuple[Layer, Layer]:
    """The layer along rows and along columns, of which each setting has one number, or a number per axis."""
    rows, columns = (Layer(*(_at(value, axis) for value in settings)) for axis in (0, 1))
    return rows, columns


def _defaults(given: Sequence[Any], defaults: tuple[Any, ...], count: int) -> list[Any]:
    """Arguments of an operation without those at the end that have their default."""
    return [*given, *defaults[len(given) - count :]][:count] if len(given) < count else list(given[:count])


def _at(value: Any, axis: int) -> Any:
    if isinstance(value, list | tuple):
        return value[axis] if len(value) > 1 else value[0]
    return value
