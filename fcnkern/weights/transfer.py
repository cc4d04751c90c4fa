"""Copy parameters by layer name: from another VGG16 into a body, from a coarser FCN into a finer one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fcnkern.weights.key_maps import canonical_name

if TYPE_CHECKING:
    from fcnkern.models.vgg import VGG16

_OPTIONAL = ("fc6", "fc7")


@dataclass(frozen=True)
class LoadReport:
    """What a transfer of weights did.

    Attributes:
        source: where the weights came from.
        loaded: layers that were copied.
        initialised: layers the source lacks, which got new weights.
        unused: names in the source for which the model has no place.
        kept: layers the source lacks, which were left as they were.
        narrowed: whether the copies are the leading channels only (a model with `width` < 1).
    """

    source: str
    loaded: tuple[str, ...]
    initialised: tuple[str, ...]
    unused: tuple[str, ...]
    kept: tuple[str, ...] = ()
    narrowed: bool = False

    def __str__(self) -> str:
        lines = [f"{self.source}: loaded {', '.join(self.loaded) or 'nothing'}"]
        if self.narrowed:
            lines.append("leading channels only: a warm start, not the trained network")
        if self.initialised:
            lines.append(f"not in the source, newly initialised: {', '.join(self.initialised)}")
        if self.kept:
            lines.append(f"not in the source, left as they were: {', '.join(self.kept)}")
        if self.unused:
            lines.append(f"unused: {', '.join(self.unused)}")
        return "\n".join(lines)


def transfer_vgg16(model: VGG16, state: Mapping[str, Any], *, source: str) -> LoadReport:
    """Copy conv1_1 ... fc7 into a VGG16 body; fc6 and fc7 are initialised anew where `state` lacks them.

    Fully connected matrices (out, in) are read as convolutions in C, H, W order. Where `model.width` < 1 the leading
    channels of every layer are taken, their weights times the square root of (input channels in the source ÷ here),
    which keeps the magnitude of activations within a factor of four (measured at widths 1/2 to 1/8; without it the
    later layers fade to a tenth). That is a warm start for small machines; it is not the trained network.

    Args:
        state: names (torchvision's, pytorch-fcn's, Caffe's layers) to tensors or numpy arrays.
        source: what to call `state` in messages, a file's path for instance.

    Raises:
        ValueError: a convolution, or one half of a layer, is missing; a shape does not fit; a value is not
            finite. The message names source, parameter and shapes, and the model is unchanged.
    """
    named = {canonical_name(key): key for key in state}
    fitted: dict[str, Tensor] = {}
    initialised, narrowed = [], False
    for layer in model.body_layers:
        keys = [f"{layer}.weight", f"{layer}.bias"]
        missing = [key for key in keys if key not in named]
        if layer in _OPTIONAL and len(missing) == 2:
            initialised.append(layer)
            continue
        if missing:
            raise ValueError(f"{source}: {missing[0]} is missing")
        for key in keys:
            value = _as_tensor(state[named[key]], key, source)
            fitted[key] = _fit(value, model.get_parameter(key), key, source, narrow=model.width < 1)
            narrowed |= fitted[key].numel() != value.numel()
    for layer in initialised:
        model.reset_layer(layer)
    _assign(model, fitted)
    unused = tuple(key for name, key in named.items() if name not in fitted)
    loaded = tuple(layer for layer in model.body_layers if layer not in initialised)
    return LoadReport(source, loaded, tuple(initialised), unused, narrowed=narrowed)


def transfer_same_names(
    model: VGG16, source: nn.Module | Mapping[str, Any], *, required: Sequence[str]
) -> LoadReport:
    """Copy every parameter that both have under the same name, as the staged training of the paper does.

    Raises:
        ValueError: a layer of `required` is missing in the source, or a common one has another shape; the model is
            unchanged then.
    """
    label = type(source).__name__
    state: Mapping[str, Any] = source.state_dict() if isinstance(source, nn.Module) else source
    lacking = [layer for layer in required if f"{layer}.weight" not in state]
    if lacking:
        raise ValueError(f"{label}: {lacking[0]}.weight is missing")
    parameters = dict(model.named_parameters())
    fitted = {
        key: _fit(_as_tensor(state[key], key, label), parameter, key, label, narrow=False)
        for key, parameter in parameters.items()
        if key in state
    }
    _assign(model, fitted)
    model.preprocess = getattr(source, "preprocess", model.preprocess)
    layers = dict.fromkeys(key.rpartition(".")[0] for key in parameters)
    taken = dict.fromkeys(key.rpartition(".")[0] for key in fitted)
    kept = tuple(layer for layer in layers if layer not in taken)
    unused = tuple(key for key in state if key not in fitted)
    return LoadReport(label, tuple(taken), (), unused, kept=kept)


def _as_tensor(value: Any, key: str, source: str) -> Tensor:
    tensor = torch.as_tensor(value).detach()
    if not torch.isfinite(torch.linalg.vector_norm(tensor, dtype=torch.float64)):
        raise ValueError(f"{source}: {key} contains NaN or infinity")
    return tensor


def _fit(value: Tensor, parameter: Tensor, key: str, source: str, *, narrow: bool) -> Tensor:
    """`value` in the shape of `parameter`: as it is, as a convolution, or its leading channels."""
    shape = parameter.shape
    if value.dim() == 2 and len(shape) == 4 and value.shape[1] % (shape[2] * shape[3]) == 0:
        value = value.reshape(value.shape[0], -1, *shape[2:])
    if value.shape == shape:
        return value
    leading = value.dim() == len(shape) and value.shape[2:] == shape[2:]
    if narrow and leading and all(have >= want for have, want in zip(value.shape, shape, strict=True)):
        return _leading_channels(value, shape)
    raise ValueError(f"{source}: {key} has shape {tuple(value.shape)}, the model needs {tuple(shape)}")


def _leading_channels(value: Tensor, shape: torch.Size) -> Tensor:
    if value.dim() == 1:
        return value[: shape[0]]
    return value[: shape[0], : shape[1]] * (value.shape[1] / shape[1]) ** 0.5


@torch.no_grad()
def _assign(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for key, value in values.items():
        model.get_parameter(key).copy_(value)
