"""Copy parameters by layer name: from a classifier into a body, from a coarser FCN into a finer one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fcnkern.weights.authors import whole
from fcnkern.weights.key_maps import AT_ONCE_SCALES, parameter_names
from fcnkern.weights.mismatch import WeightsMismatchError

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
        zero: loaded layers whose weights are all zero, as in a network that was never initialised.
        preprocess: the convention of the weights' input, where one is known.
        assumed: whether it is only the usual one, of a source that does not say.
    """

    source: str
    loaded: tuple[str, ...]
    initialised: tuple[str, ...]
    unused: tuple[str, ...]
    kept: tuple[str, ...] = ()
    narrowed: bool = False
    zero: tuple[str, ...] = ()
    preprocess: str | None = None
    assumed: bool = False

    def __str__(self) -> str:
        lines = [f"{self.source}: loaded {', '.join(self.loaded) or 'nothing'}"]
        if self.narrowed:
            lines.append("leading channels only: a warm start, not the trained network")
        if self.zero:
            lines.append(f"all zero, so that nothing passes them: {', '.join(self.zero)}")
        if self.initialised:
            lines.append(f"not in the source, newly initialised: {', '.join(self.initialised)}")
        if self.kept:
            lines.append(f"not in the source, left as they were: {', '.join(self.kept)}")
        if self.unused:
            lines.append(f"unused: {', '.join(self.unused)}")
        if self.preprocess is not None:
            guess = " (assumed: the source does not say; give preprocess where it is another)"
            lines.append(f"input: {self.preprocess}{guess * self.assumed}")
        return "\n".join(lines)


def image_channels(model: nn.Module, state: Mapping[str, Any]) -> int | None:
    """Channels of the images that the weights `state` of a body or an FCN like `model` are for: as many as the first
    convolution takes; None where `state` lacks it."""
    layers = _body_layers(getattr(model, "body", model))
    first = _first_weight(layers)
    found = [
        torch.as_tensor(state[key]) for key, ours in parameter_names(state, layers).items() if ours == first
    ]
    return found[0].shape[1] if found and found[0].dim() > 1 else None


def transfer_body(model: nn.Module, state: Mapping[str, Any], *, source: str) -> LoadReport:
    """Copy a classifier's weights into a body; fc6 and fc7 are initialised anew where `state` lacks them.

    Fully connected matrices (out, in) are read as convolutions in C, H, W order. Where `model.width` < 1 the leading
    channels of every layer are taken, their weights times the square root of (input channels in the source ÷ here),
    which keeps the magnitude of activations within a factor of four (measured at widths 1/2 to 1/8; without it the
    later layers fade to a tenth). That is a warm start for small machines; it is not the trained network. Only chains
    can be narrowed so: behind groups (CaffeNet) or joined branches (GoogLeNet) the leading channels are other ones.
    The channels of the images must be as many as the weights are for.

    Statistics of batch normalisation are taken as weights are.

    Args:
        model: a body, or an FCN, whose head is left as it is.
        state: names (Caffe's, torchvision's, pytorch-fcn's or this package's) to tensors or numpy arrays.
        source: what to call `state` in messages, a file's path for instance.

    Raises:
        WeightsMismatchError (a ValueError): a convolution, or a part of a layer, is missing; shapes do not fit. All
            of them are named, and what there is instead; the model is unchanged.
        ValueError: a value is not finite. The message names source and parameter, and the model is unchanged.
    """
    body = getattr(model, "body", model)
    layers = _body_layers(body)
    named = {ours: key for key, ours in parameter_names(state, layers).items()}
    initialised = tuple(
        layer
        for layer in _OPTIONAL
        if layer in layers and not {f"{layer}.weight", f"{layer}.bias"} & set(named)
    )
    parameters = {
        f"{layer}.{kind}": value
        for layer, module in layers.items()
        if layer not in initialised
        for kind, value in _own_tensors(module).items()
    }
    unused = tuple(key for name, key in named.items() if name not in parameters)
    given = {key: torch.as_tensor(state[named[key]]).detach() for key in parameters if key in named}
    narrow = getattr(body, "width", 1.0) < 1 and _is_chain(list(parameters.values()))
    fitted = _fit_all(given, parameters, source, unused, narrow=narrow, first=_first_weight(layers))
    for layer in initialised:
        layers[layer].reset_parameters()
    _assign(parameters, fitted)
    loaded = tuple(layer for layer in layers if layer not in initialised)
    narrowed = any(fitted[key].numel() != value.numel() for key, value in given.items())
    zero = tuple(layer for layer in loaded if (key := f"{layer}.weight") in given and is_zero(given[key]))
    return LoadReport(source, loaded, initialised, unused, narrowed=narrowed, zero=zero)


def transfer_network(model: nn.Module, state: Mapping[str, Any], *, source: str) -> LoadReport:
    """Copy all weights of a network, body and head, from Caffe's names, pytorch-fcn's or this package's.

    So come the models of fcn.berkeleyvision.org into the networks of this package: those with depth into ones with
    `in_channels=4`, late fusion into `LateFusion`, two heads into `MultiTask` or an FCN with the classes of both.
    `model.preprocess` stays as it is; `fcnkern.engine.load_released` knows what each of these models wants.

    Args:
        model: an FCN, `LateFusion` or `MultiTask` that has exactly the layers of `state`.
        state: names to tensors or numpy arrays.
        source: what to call `state` in messages, a file's path for instance.

    Raises:
        WeightsMismatchError (a ValueError): parameters are missing, misshapen or have no place; all are named.
        ValueError: one network of late fusion without the other; heads of other tasks; features that are scaled for
            FCN-8s at once and not in `model`, or the other way round; a value that is not finite. The model is
            unchanged whatever is raised.
    """
    tensors = {key: torch.as_tensor(value).detach() for key, value in state.items()}
    given, tasks = whole(tensors, source)
    heads = list(getattr(model, "heads", tasks).values())
    if tasks and heads != list(tasks.values()):
        raise ValueError(f"{source}: the heads are {tasks}, those of the network {model.heads}")
    _take_scales(model, given, source)
    own = {key: value for key, value in model.state_dict(keep_vars=True).items() if value.is_floating_point()}
    parameters, _ = whole(own, "model")
    unexpected = [key for key in given if key not in parameters]
    known = {key: value for key, value in given.items() if key in parameters}
    fitted = _fit_all(known, parameters, source, unexpected)
    if unexpected:
        raise WeightsMismatchError(source, (), {}, unexpected)
    _assign(parameters, fitted)
    layers = dict.fromkeys(key.rpartition(".")[0] for key in parameters)
    zero = tuple(layer for layer in layers if "score_" not in layer and is_zero(given[f"{layer}.weight"]))
    return LoadReport(source, tuple(layers), (), (), zero=zero)


def _take_scales(model: nn.Module, given: dict[str, Tensor], source: str) -> None:
    """Takes Caffe's scale layers out of `given`: here their constants are part of the network, which must agree."""
    net = getattr(model, "net", model)
    for layer in AT_ONCE_SCALES:
        scale = given.pop(f"{layer}.weight", None)
        own = getattr(net, f"{layer.removeprefix('scale_')}_scale", 1.0)
        if scale is not None and not torch.allclose(scale, torch.full_like(scale, own), rtol=1e-6, atol=0):
            raise ValueError(
                f"{source}: {layer} is {scale.flatten()[0].item():g}, {type(net).__name__} has {own:g}: FCN-8s at "
                "once and FCN-8s are different networks"
            )


def transfer_same_names(
    model: nn.Module,
    source: nn.Module | Mapping[str, Any],
    *,
    required: Sequence[str],
    names: Mapping[str, str | None] = MappingProxyType({}),
) -> LoadReport:
    """Copy every parameter that both have under the same name, as the staged training of the paper does.

    Args:
        required: layers of the model that the source must have.
        names: layers of the source that the model calls otherwise, and its names; None for those it does not have.

    Raises:
        WeightsMismatchError (a ValueError): layers of `required` are missing in the source, or common ones have
            another shape; the model is unchanged then.
    """
    label = type(source).__name__
    state: Mapping[str, Any] = source.state_dict() if isinstance(source, nn.Module) else source
    parameters = dict(model.named_parameters())
    theirs = {_renamed(key, names): key for key in state}
    unused = tuple(key for ours, key in theirs.items() if ours not in parameters)
    given = {key: torch.as_tensor(state[theirs[key]]).detach() for key in parameters if key in theirs}
    wanted = dict.fromkeys([*given, *(key for key in parameters if key.rpartition(".")[0] in required)])
    fitted = _fit_all(given, {key: parameters[key] for key in wanted}, label, unused)
    _assign(parameters, fitted)
    if hasattr(source, "preprocess"):
        model.preprocess = source.preprocess
    layers = dict.fromkeys(key.rpartition(".")[0] for key in parameters)
    taken = dict.fromkeys(key.rpartition(".")[0] for key in fitted)
    kept = tuple(layer for layer in layers if layer not in taken)
    return LoadReport(label, tuple(taken), (), unused, kept=kept)


def _renamed(key: str, names: Mapping[str, str | None]) -> str:
    """The model's name of a parameter of the source; "." and its kind, which no parameter is called, for none."""
    layer, _, kind = key.rpartition(".")
    return f"{names[layer] or ''}.{kind}" if layer in names else key


def _body_layers(body: nn.Module) -> dict[str, Any]:
    """The modules with parameters or statistics of their own, by name, without those of an FCN's head."""
    return {
        name: module
        for name, module in body.named_modules()
        if _own_tensors(module) and not name.startswith(("score_", "upscore"))
    }


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module, without those of the modules in it, and the statistics in its state_dict."""
    buffers = {
        kind: value
        for kind, value in module.named_buffers(recurse=False)
        if kind not in module._non_persistent_buffers_set and value.is_floating_point()
    }
    return {**dict(module.named_parameters(recurse=False)), **buffers}


def _first_weight(layers: Mapping[str, Any]) -> str | None:
    """The weight of the convolution that takes the images."""
    convolutions = (name for name, module in layers.items() if isinstance(module, nn.Conv2d))
    return next((f"{name}.weight" for name in convolutions), None)


def _is_chain(parameters: Sequence[Tensor]) -> bool:
    """Whether each layer reads all outputs of the one before, so that leading channels stay leading channels."""
    weights = [parameter for parameter in parameters if parameter.dim() > 1]
    return all(after.shape[1] == before.shape[0] for before, after in itertools.pairwise(weights))


def is_zero(value: Tensor) -> bool:
    """Whether every number is zero. The first output channel decides for nearly all trained layers."""
    return not torch.atleast_1d(value)[:1].any() and not value.any()


def _fit_all(
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: str,
    unexpected: Sequence[str],
    *,
    narrow: bool = False,
    first: str | None = None,
) -> dict[str, Tensor]:
    """Every wanted parameter, in the wanted shape; `first` takes images and is not narrowed there."""
    fitted: dict[str, Tensor] = {}
    misshapen = {}
    for key, value in given.items():
        shape = wanted[key].shape
        fit = _fit(value, shape, narrow=narrow and (key != first or value.shape[1:2] == shape[1:2]))
        if fit is None:
            misshapen[key] = (tuple(value.shape), tuple(shape))
        else:
            fitted[key] = fit
    missing = [key for key in wanted if key not in given]
    if missing or misshapen:
        raise WeightsMismatchError(source, missing, misshapen, unexpected)
    for key, value in given.items():
        if not torch.isfinite(torch.linalg.vector_norm(value, dtype=torch.float64)):
            raise ValueError(f"{source}: {key} contains NaN or infinity")
    return fitted


def _fit(value: Tensor, shape: torch.Size, *, narrow: bool) -> Tensor | None:
    """`value` in that shape: as it is, as a convolution, or its leading channels; None if it does not fit."""
    if value.dim() == 2 and len(shape) == 4 and value.shape[1] % (shape[2] * shape[3]) == 0:
        value = value.reshape(value.shape[0], -1, *shape[2:])
    if value.shape == shape:
        return value
    leading = value.dim() == len(shape) and value.shape[2:] == shape[2:]
    if narrow and leading and all(have >= want for have, want in zip(value.shape, shape, strict=True)):
        return _leading_channels(value, shape)
    return None


def _leading_channels(value: Tensor, shape: torch.Size) -> Tensor:
    if value.dim() == 1:
        return value[: shape[0]]
    return value[: shape[0], : shape[1]] * (value.shape[1] / shape[1]) ** 0.5


@torch.no_grad()
def _assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for key, value in values.items():
        parameters[key].copy_(value)
