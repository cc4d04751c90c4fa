"""Networks by name: every head on every body of the paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fcnkern.models.alexnet import AlexNet, CaffeNet
from fcnkern.models.body import Body
from fcnkern.models.fcn import FCN, Upsampling
from fcnkern.models.fcn_vgg16 import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from fcnkern.models.googlenet import GoogLeNet

HEADS = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}
"""Heads, and how many taps each has."""


def _on(body: Callable[[float], Body], taps: int, classes: int, width: float, upsampling: Upsampling) -> FCN:
    trunk = body(width)
    return FCN(trunk, trunk.tap_names[-taps:], classes, upsampling=upsampling)


_MODELS: dict[str, Callable[[int, float, Upsampling], FCN]] = {
    "fcn32s_vgg16": FCN32s,
    "fcn16s_vgg16": FCN16s,
    "fcn8s_vgg16": FCN8s,
    "fcn8s-atonce_vgg16": FCN8sAtOnce,
}
for _name, _body in {"caffenet": CaffeNet, "alexnet": AlexNet, "googlenet": GoogLeNet}.items():
    for _head, _taps in HEADS.items():
        _MODELS[f"{_head}_{_name}"] = partial(_on, _body, _taps)

ALIASES = {name.removesuffix("_vgg16"): name for name in _MODELS if name.endswith("_vgg16")}
"""Short names: VGG16 is the body where none is named."""


def list_models() -> list[str]:
    """Names that `create` takes, without the short ones for VGG16 (`fcn8s` for `fcn8s_vgg16`)."""
    return list(_MODELS)


def create(
    name: str,
    classes: int = 21,
    *,
    width: float = 1.0,
    upsampling: Upsampling = "fixed",
    elide: bool = False,
) -> FCN:
    """A network by name, with new weights: `create("fcn8s_googlenet", classes=11)`.

    Args:
        name: one of `list_models()`, or a short name of a network on VGG16.
        classes: number of classes C.
        width: scales the channels of the body; 1 is the published network.
        upsampling: "fixed" (bilinear) or "learned", as in `FCN`.
        elide: compute only what the images influence, as `FCN.elide` says; for the networks on VGG16.

    Raises:
        ValueError: an unknown name, an argument out of range, or `elide` for another body.
    """
    full = ALIASES.get(name, name)
    if full not in _MODELS:
        raise ValueError(f"network {name!r} is unknown, wanted one of {', '.join([*_MODELS, *ALIASES])}")
    model = _MODELS[full](classes, width, upsampling)
    model.elide = elide
    return model
