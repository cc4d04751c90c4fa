"""The networks of fcn.berkeleyvision.org under the names of their net.py, and what Caffe computes with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.models import _caffe, _torchfcn
from tests.models._torchfcn import bilinear

State = dict[str, Tensor]
FAMILIES = (
    "voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet",
    "nyud-fcn32s-color", "nyud-fcn32s-hha", "nyud-fcn32s-color-d", "nyud-fcn32s-color-hha",
    "siftflow-fcn32s", "siftflow-fcn16s", "siftflow-fcn8s",
    "pascalcontext-fcn32s", "pascalcontext-fcn16s", "pascalcontext-fcn8s",
)  # fmt: skip
CLASSES = {"voc": 21, "nyud": 40, "pascalcontext": 60}
TASKS = {"_sem": 33, "_geo": 3}
CAFFENET = {"conv1": (96, 3, 11), "conv2": (256, 48, 5), "conv3": (384, 256, 3), "conv4": (384, 192, 3),
            "conv5": (256, 192, 3), "fc6": (4096, 256, 6), "fc7": (4096, 4096, 1)}  # fmt: skip


def layers(family: str, divide: int = 1) -> dict[str, tuple[int, ...]]:
    """Blobs by name; `divide` the channels of the body."""
    data, _, net = family.partition("-")
    if data == "siftflow":
        heads = [_head(_kind(net), count, suffix, divide) for suffix, count in TASKS.items()]
        return _body(divide) | heads[0] | heads[1]
    classes = CLASSES[data]
    if net == "fcn-alexnet":
        out = {f"{name}.weight": _narrow(o, i, k, divide) for name, (o, i, k) in CAFFENET.items()}
        out |= {f"{name}.bias": (o // divide,) for name, (o, _, _) in CAFFENET.items()}
        return out | _head("FCN32s", classes, "", divide) | {"upscore.weight": (classes, classes, 63, 63)}
    if net == "fcn32s-color-hha":
        out = {"upscore.weight": (classes, classes, 64, 64)}
        for stream in ("color", "hha"):
            out |= _body(divide, stream) | _head("FCN32s", classes, stream, divide)
            del out[f"upscore{stream}.weight"]
        return out
    out = _body(divide) | _head(_kind(net), classes, "", divide)
    if net == "fcn8s-atonce":
        out |= {"scale_pool4.weight": (512 // divide,), "scale_pool3.weight": (256 // divide,)}
    if net == "fcn32s-color-d":
        out["conv1_1_bgrd.weight"] = (64 // divide, 4, 3, 3)
        out["conv1_1_bgrd.bias"] = out.pop("conv1_1.bias")
        del out["conv1_1.weight"]
    return out


def narrow_by(family: str) -> int:
    """What divides the channels of a network for a test; a multiple of four remains everywhere."""
    return 8 if family == "voc-fcn-alexnet" else 16


def random_state(family: str) -> State:
    """Narrow weights that keep activations of order one, bilinear upsampling, the at-once network's constants."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in layers(family, narrow_by(family)).items():
        fan_in = shape[1] * shape[2] * shape[3] if len(shape) == 4 else 50
        state[key] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        if key.startswith("upscore"):
            state[key] = bilinear(shape[0], shape[-1])
        if key.startswith("scale"):
            state[key] = torch.full(shape, {"scale_pool4": 0.01, "scale_pool3": 0.0001}[key[:-7]])
    return state


def forward(family: str, state: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Logits of each head, from images as the network wants them, colour and HHA one behind the other."""
    _, _, net = family.partition("-")
    kind = _kind(net)
    if net == "fcn-alexnet":
        return [_caffe.forward("caffenet", 1, state, x)]
    if net == "fcn32s-color-hha":
        parts = zip(("color", "hha"), x.split(3, 1), strict=True)
        color, hha = (_torchfcn.forward(kind, _without(state, stream), image) for stream, image in parts)
        return [0.5 * color + 0.5 * hha]
    if family.startswith("siftflow"):
        return [_torchfcn.forward(kind, _without(state, suffix), x) for suffix in TASKS]
    return [_torchfcn.forward(kind, _without(state, "_bgrd"), x)]


def _without(state: Mapping[str, Tensor], suffix: str) -> State:
    """The weights with that suffix, and those without any, under names without it."""
    own = {key.replace(f"{suffix}.", "."): value for key, value in state.items() if f"{suffix}." in key}
    return dict(state) | own


def _kind(net: str) -> str:
    return {"fcn8s-atonce": "FCN8sAtOnce", "fcn16s": "FCN16s", "fcn8s": "FCN8s"}.get(net, "FCN32s")


def _narrow(out: int, channels: int, kernel: int, divide: int) -> tuple[int, ...]:
    return out // divide, channels if channels == 3 else channels // divide, kernel, kernel


def _body(divide: int, suffix: str = "") -> dict[str, tuple[int, ...]]:
    blobs = {}
    for name, (out, channels, kernel) in _torchfcn.BODY.items():
        blobs[f"{name}{suffix}.weight"] = _narrow(out, channels, kernel, divide)
        blobs[f"{name}{suffix}.bias"] = (out // divide,)
    return blobs


def _head(kind: str, classes: int, suffix: str, divide: int) -> dict[str, tuple[int, ...]]:
    scores, upsampling = _torchfcn.HEADS[kind]
    blobs: dict[str, tuple[int, ...]] = {}
    for name in scores:
        blobs[f"{name}{suffix}.weight"] = (classes, _torchfcn.SCORES[name] // divide, 1, 1)
        blobs[f"{name}{suffix}.bias"] = (classes,)
    return blobs | {f"{name}{suffix}.weight": (classes, classes, k, k) for name, k in upsampling.items()}
