"""Which bodies are a chain of layers whose margins `fcnkern.models.elision` can leave out, and why others are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from fcnkern.models.body import Body, Chain, Keep
from fcnkern.models.geometry import Layer
from fcnkern.models.layers import CaffeLRN, CeilMaxPool2d
from fcnkern.nn.pool import MaxPool2d

PIXELWISE = {
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.BatchNorm2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.LocalResponseNorm,
    CaffeLRN,
}
"""Modules whose output at a pixel depends on that pixel alone; batch normalisation and dropout: see `check_part`."""


_POOLS = (nn.MaxPool2d, MaxPool2d, CeilMaxPool2d)


def chain_of(body: nn.Module, names: Sequence[str]) -> Chain:
    """The chain of layers that gives the feature maps `names` of a body, up to the last of them.

    Args:
        body: VGG16, or an `nn.Sequential`, whose taps are its layers or `nn.Sequential`s within it.

    Raises:
        ValueError: the body is no such chain, with the reason.
    """
    chain = body.chain() if isinstance(body, Body) else _sequential_chain(body, names)
    taps = {name: chain.taps[name] for name in names}
    return chain._replace(layers=chain.layers[: max(taps.values())], taps=taps)


def geometry(chain: Chain) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Every layer along rows and along columns.

    Raises:
        ValueError: a layer is neither a convolution with zero padding, nor a max pool without padding, nor acts on
            each pixel alone; or one behind the first pads by as much as its kernel spans.
    """
    rows, columns = zip(*(_both_axes(name, layer) for name, layer in chain.layers), strict=True)
    for (name, layer), *axes in zip(chain.layers[1:], rows[1:], columns[1:], strict=True):
        if any(axis.pad >= axis.span for axis in axes):
            raise ValueError(
                f"elide needs padding behind the first layer to be less than the kernel, layer {name!r} is {layer}"
            )
    return rows, columns


def check_hooks(chain: Chain) -> None:
    """Refuse hooks, which would be given parts of maps, or not be called at all: RuntimeError."""
    for name, module in (*chain.layers, *chain.containers):
        hooks = [
            *module._forward_hooks.values(),
            *module._forward_pre_hooks.values(),
            *module._backward_hooks.values(),
            *module._backward_pre_hooks.values(),
        ]
        foreign = [hook for hook in hooks if not isinstance(hook, Keep)]
        if foreign:
            raise RuntimeError(
                f"layer {name!r} has a hook ({foreign[0]!r}), which would see parts of maps while elide is on: "
                "remove the hook, or set elide = False"
            )


def check_part(name: str, layer: nn.Module) -> None:
    """Refuse a layer that must see its whole map at once where only a part of it is computed: RuntimeError."""
    if isinstance(layer, nn.BatchNorm2d) and (layer.training or layer.running_mean is None):
        what = "takes the statistics of its whole map"
    elif isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.training and layer.p > 0:
        what = "draws random numbers for its whole map"
    else:
        return
    raise RuntimeError(
        f"layer {name!r} ({type(layer).__name__}) {what}, of which only a part is computed while elide is on: call "
        "eval() on it, or set elide = False"
    )


def _sequential_chain(body: nn.Module, names: Sequence[str]) -> Chain:
    if not _is_sequential(body):
        raise ValueError(
            f"elide needs a body that is one chain of layers, VGG16 or an nn.Sequential, got {type(body).__name__}"
        )
    layers: list[tuple[str, nn.Module]] = []
    containers: list[tuple[str, nn.Module]] = []
    ends: dict[nn.Module, int] = {}
    for name, module, is_layer in _walk("", body):
        (layers if is_layer else containers).append((name, module))
        ends[module] = len(layers)  # of a module that runs twice, the last time
    return Chain(
        tuple(layers), {name: ends[body.get_submodule(name)] for name in names}, {}, tuple(containers)
    )


def _walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Layers in the order in which they run, each `nn.Sequential` behind its own; whether it is a layer."""
    if _is_sequential(module):
        for key, child in module._modules.items():
            assert child is not None
            yield from _walk(f"{name}.{key}" if name else key, child)
    yield name, module, not _is_sequential(module)


def _is_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and _computes_as(module, nn.Sequential, "forward")


def _both_axes(name: str, layer: nn.Module) -> tuple[Layer, Layer]:
    if type(layer) in PIXELWISE:
        return Layer(1), Layer(1)
    sizes: tuple[Any, ...]
    if any(isinstance(layer, pool) and _computes_as(layer, pool, "forward") for pool in _POOLS):
        if any(_pair(layer.padding)) or layer.return_indices:
            raise ValueError(f"elide needs max pools without padding or indices, layer {name!r} is {layer}")
        sizes = (layer.kernel_size, layer.stride, 0, False, layer.ceil_mode, layer.dilation)
    elif isinstance(layer, nn.Conv2d) and _computes_as(layer, nn.Conv2d, "forward", "_conv_forward"):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError(f"elide needs zero padding given in numbers, layer {name!r} is {layer}")
        sizes = (layer.kernel_size, layer.stride, layer.padding, False, False, layer.dilation)
    else:
        raise ValueError(
            f"elide needs convolutions, max pools and layers that act on each pixel alone, layer {name!r} is {layer}"
        )
    rows, columns = zip(*map(_pair, sizes), strict=True)
    return Layer(*rows), Layer(*columns)


def _computes_as(module: nn.Module, base: type, *methods: str) -> bool:
    """Whether a module of a subclass, such as `BodyConv2d`, has the methods of its base."""
    return all(
        getattr(getattr(module, method), "__func__", None) is getattr(base, method) for method in methods
    )


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)
