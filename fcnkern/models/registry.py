"""Networks by name: every head on every body of the paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from fcnkern.models.alexnet import AlexNet, CaffeNet
from fcnkern.models.fcn import FCN, Upsampling
from fcnkern.models.fcn_vgg16 import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from fcnkern.models.fusion import LateFusion
from fcnkern.models.googlenet import GoogLeNet

HEADS = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}
"""Heads, and how many taps each has."""


def _on(
    body: type[CaffeNet | AlexNet | GoogLeNet],
    taps: int,
    classes: int,
    width: float,
    upsampling: Upsampling,
    in_channels: int,
) -> FCN:
    trunk = body(width, in_channels=in_channels)
    return FCN(trunk, trunk.tap_names[-taps:], classes, upsampling=upsampling, in_channels=in_channels)


_BODIES: dict[str, type[CaffeNet | AlexNet | GoogLeNet]] = {
    "caffenet": CaffeNet,
    "alexnet": AlexNet,
    "googlenet": GoogLeNet,
}
_MODELS: dict[str, Callable[[int, float, Upsampling, int], FCN]] = {
    "fcn32s_vgg16": FCN32s,
    "fcn16s_vgg16": FCN16s,
    "fcn8s_vgg16": FCN8s,
    "fcn8s-atonce_vgg16": FCN8sAtOnce,
}
for _name, _body in _BODIES.items():
    for _head, _taps in HEADS.items():
        _MODELS[f"{_head}_{_name}"] = partial(_on, _body, _taps)

ALIASES = {name.removesuffix("_vgg16"): name for name in _MODELS if name.endswith("_vgg16")}
"""Short names: VGG16 is the body where none is named."""
_LATE = "-late"


class Name(NamedTuple):
    """A network's name in parts: head (`fcn8s`), body (`vgg16`), whether two such networks are fused late."""

    head: str
    body: str
    late: bool


def parse_name(name: str) -> Name:
    """The parts of any network's name, `fcn32s-late` or `fcn8s-atonce_vgg16`; it need not be that of one."""
    head, _, body = name.partition("_")
    return Name(head.removesuffix(_LATE), body or "vgg16", head.endswith(_LATE))


def list_models() -> list[str]:
    """Names that `create` takes, without the short ones for VGG16 (`fcn8s` for `fcn8s_vgg16`)."""
    return list(_MODELS)


def list_late() -> list[str]:
    """Names that `create_late` takes, without the short ones for VGG16 (`fcn32s-late` for `fcn32s-late_vgg16`)."""
    return [name.replace("_", f"{_LATE}_") for name in _MODELS]


def create(
    name: str,
    classes: int = 21,
    *,
    width: float = 1.0,
    upsampling: Upsampling = "fixed",
    in_channels: int = 3,
    elide: bool = False,
) -> FCN:
    """A network by name, with new weights: `create("fcn8s_googlenet", classes=11)`.

    Args:
        name: one of `list_models()`, or a short name of a network on VGG16.
        classes: number of classes C.
        width: scales the channels of the body; 1 is the published network.
        upsampling: "fixed" (bilinear) or "learned", as in `FCN`.
        in_channels: of the images; more than 3 for early fusion (see `fcnkern.models.surgery.fuse_early`).
        elide: compute only what the images influence, as `FCN.elide` says; for the networks on VGG16.

    Raises:
        ValueError: an unknown name, an argument out of range, or `elide` for another body.
    """
    full = ALIASES.get(name, name)
    if full not in _MODELS:
        raise ValueError(f"network {name!r} is unknown, wanted one of {', '.join([*_MODELS, *ALIASES])}")
    model = _MODELS[full](classes, width, upsampling, in_channels)
    model.elide = elide
    return model


def create_late(name: str, classes: int = 21, **options: Any) -> LateFusion:
    """Two networks on three channels each, fused late, by name: `create_late("fcn32s-late_vgg16", classes=40)`.

    Args:
        name: one of `list_late()`, or a short name of one on VGG16.
        classes: number of classes C.
        options: `width` and `elide` of both networks, as for `create`.

    Raises:
        ValueError: an unknown name, or as `create` and `LateFusion` say.
    """
    head, body, late = parse_name(name)
    if not late or f"{head}_{body}" not in _MODELS:
        raise ValueError(f"network {name!r} is unknown, wanted one of {', '.join(list_late())}")
    color, hha = (create(f"{head}_{body}", classes, **options) for _ in range(2))
    return LateFusion(color, hha)
